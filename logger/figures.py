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


def layer_figure(values: ArrayLike, title: str) -> Figure:
    """What a layer makes of one item.

    Args:
        values: ``(channels, height, width)``, each channel a tile of its own brightness, the first row at the bottom;
            ``(channels, length)`` as one picture; or ``(features,)`` as a curve.
        title: a line above.
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim not in (1, 2, 3):
        raise ValueError(f"need 1 to 3 axes, got {values.shape}")
    figure = _figure(5.2, 5.2 if values.ndim == 3 else 3.0, layout=None)
    # Fixed margins, wider where numbers stand in them: a layout engine would take as long as all of the drawing.
    axes = figure.add_axes((0.1, 0.1, 0.88, 0.8) if values.ndim == 1 else (0.02, 0.02, 0.96, 0.9))
    axes.set_title(_literal(title), fontsize=9)
    if values.ndim == 1:
        axes.plot(values, linewidth=0.7, color="#1f4e79")
        axes.margins(x=0)
        return figure
    axes.set_axis_off()
    # A channel may have but few pixels one way and many the other: tiles are stretched to squares.
    picture = _tiles(values) if values.ndim == 3 else values
    axes.imshow(np.ma.masked_invalid(picture), cmap="magma", origin="lower", aspect="auto", interpolation="nearest")
    return figure


def _tiles(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channels ``(n, height, width)`` side by side, the first at the top left, each from 0 to 1, with gaps of NaN."""
    n, height, width = channels.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    gap_y, gap_x = -(-height // 20), -(-width // 20)
    picture = np.full((rows * (height + gap_y), columns * (width + gap_x)), np.nan, np.float32)
    for index, channel in enumerate(channels):
        row, column = rows - 1 - index // columns, index % columns
        y, x = row * (height + gap_y), column * (width + gap_x)
        picture[y : y + height, x : x + width] = _from_0_to_1(channel)
    return picture


def _from_0_to_1(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scaled by the least and the largest finite one; all 0 where they are the same."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size or finite.min() == finite.max():
        return np.where(np.isfinite(values), np.float32(0), np.float32(np.nan))
    return ((values - finite.min()) / (finite.max() - finite.min())).astype(np.float32)


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
