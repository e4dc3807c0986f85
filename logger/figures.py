"""Pictures for TensorBoard and for the report.

Drawn with `matplotlib.figure.Figure` on the Agg canvas: no pyplot, hence no global state, no window and nothing to
close.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_EXAMPLES = 8


def confusion_figure(matrix: ArrayLike, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix with the count and the share of its row in each cell, coloured by that share.

    Args:
        matrix: ``(classes, classes)`` counts, target by prediction. A cell without items
            shows 0 and no share.
        classes: their names, in order.
        title: a line above.
    """
    matrix = np.asarray(matrix)
    n = len(classes)
    if matrix.shape != (n, n):
        raise ValueError(f"need a ({n}, {n}) matrix for {n} classes, got {matrix.shape}")
    support = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)

    # Margins by the longest name, in inches at 10 points: a layout engine would take as long as all of the drawing.
    name_width = 0.085 * max(len(name) for name in classes)
    left, bottom, right, top = name_width + 0.5, 0.6 * name_width + 0.65, 0.2, 0.4
    side = 0.8 * max(n, 3)
    width, height = left + side + right, bottom + side + top
    figure = _figure(width, height, layout=None)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), [_literal(name) for name in classes], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), [_literal(name) for name in classes])
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="annotated", title=_literal(title))
    for row, column in np.ndindex(n, n):
        text = f"{matrix[row, column]:,}"
        if matrix[row, column]:
            text += f"\n{100 * share[row, column]:.0f} %"
        colour = "white" if share[row, column] > 0.55 else "#222222"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    return figure


def examples_figure(inputs: ArrayLike, labels: Sequence[str]) -> Figure:
    """Up to eight items of model input with their labels.

    Args:
        inputs: ``(n, channels, height, width)``, drawn with the first row at the bottom as frequency is;
            ``(n, time, features)``, drawn with time along x; or waveforms ``(n, samples)``. Of several channels the
            first is drawn.
        labels: one a picture.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim not in (2, 3, 4):
        raise ValueError(f"need (n, samples), (n, time, features) or (n, channels, height, width), got {inputs.shape}")
    shown = min(len(inputs), len(labels), MAX_EXAMPLES)
    columns = max(min(shown, 4), 1)
    rows = max(-(-shown // columns), 1)
    figure = _figure(2.6 * columns, 2.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for index, axes in enumerate(grid):
        axes.set(xticks=[], yticks=[])
        if index < shown:
            _draw_input(axes, inputs[index])
            axes.set_title(_literal(labels[index]), fontsize=9)
        else:
            axes.set_axis_off()
    return figure


def _draw_input(axes: Axes, item: NDArray[Any]) -> None:
    item = item.astype(np.float32)
    if item.ndim == 1:
        axes.plot(item, linewidth=0.5, color="#1f4e79")
        axes.margins(x=0)
        return
    picture = item[0] if item.ndim == 3 else item.T
    axes.imshow(picture, cmap="magma", origin="lower", aspect="auto", interpolation="nearest")


def to_image(figure: Figure) -> NDArray[np.uint8]:
    """The figure's pixels, uint8 ``(height, width, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG file, aside and then renamed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as aside:
        canvas.print_png(aside)


def _figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    from matplotlib.figure import Figure

    # White whatever the user's matplotlibrc says; TensorBoard and the README put pictures on white.
    return Figure((width, height), dpi=100, layout=layout, facecolor="white")


def _literal(text: str) -> str:
    """Text that matplotlib draws as it is: two dollar signs would otherwise be a formula, and may fail to parse."""
    return str(text).encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
