import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from logger.figures import confusion_figure, examples_figure, layer_figure, save, to_image

CLASSES = ["Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze & Crackle"]


def _texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("n", [2, 7])
def test_cells_show_counts_and_row_percentages_inside_the_picture(n):
    matrix = np.diag(np.arange(1, n + 1) * 1000)
    matrix[0, 1] = 3000
    figure = confusion_figure(matrix, CLASSES[:n], "validation")
    image = to_image(figure)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    texts = _texts(figure)
    assert texts[:2] == ["1,000\n25 %", "3,000\n75 %"]
    assert texts[n + 1] == "2,000\n100 %"
    # Every word stays inside the picture and every number inside its cell.
    renderer = figure.canvas.get_renderer()
    height, width = image.shape[:2]
    axes = figure.axes[0]
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, axes.title]:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    cell = axes.get_window_extent(renderer).width / n
    assert max(text.get_window_extent(renderer).width for text in axes.texts) < cell


def test_a_cell_without_items_has_no_percentage():
    figure = confusion_figure([[5, 0], [0, 0]], CLASSES[:2])
    assert _texts(figure) == ["5\n100 %", "0", "0", "0"]


def test_dark_cells_have_light_text():
    axes = confusion_figure([[9, 1], [1, 9]], CLASSES[:2]).axes[0]
    assert [text.get_color() for text in axes.texts] == ["white", "#222222", "#222222", "white"]


def test_names_with_dollar_signs_are_no_formulae(tmp_path):
    names = ["$\\frac{$", "a$b$c"]
    image = to_image(confusion_figure(np.eye(2, dtype=int), names, "$\\nonsense{$"))
    assert image.size
    assert to_image(examples_figure(np.zeros((1, 4, 5)), ["$\\frac{$ \udcff"])).size


@pytest.mark.parametrize("shape", [(5, 1, 20, 30), (8, 3, 20, 20), (12, 25, 16), (1, 800)])
def test_examples_of_every_input_shape_are_drawn_with_their_labels(shape):
    inputs = np.random.default_rng(0).random(shape)
    labels = [f"label {i}" for i in range(shape[0])]
    figure = examples_figure(inputs, labels)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == labels[:8]
    assert all(axes.images or axes.lines for axes in shown)
    assert to_image(figure).std() > 0


def test_time_runs_along_x_for_time_by_feature_inputs():
    figure = examples_figure(np.zeros((1, 25, 16)), ["a"])
    assert figure.axes[0].images[0].get_array().shape == (16, 25)


def test_channels_of_a_layer_are_tiles_from_the_top_left_each_of_its_own_brightness():
    channels = np.zeros((5, 20, 40))
    channels[:, 0, 0] = [1, 1000, 1e-3, -7, 0]
    tiles = layer_figure(channels, "conv").axes[0].images[0].get_array()
    # 5 tiles are 2 rows of 3, with a gap of one pixel beside each 20; the first row is drawn at the bottom.
    assert tiles.shape == (2 * 21, 3 * 42)
    corners = [tiles[21, 0], tiles[21, 42], tiles[21, 84], tiles[0, 0], tiles[0, 42]]
    assert corners == [1, 1, 1, 0, 0]
    assert tiles[1, 1] == 1  # what is above the least one, in the fourth
    assert tiles.mask[20].all()
    assert tiles.mask[:20, 84:].all()


@pytest.mark.parametrize("shape", [(16, 30, 7), (1, 1, 1), (3, 1, 900), (32, 500), (1, 1), (64,), (1,)])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3e38])
def test_layers_of_every_shape_are_drawn_whatever_they_hold(shape, value):
    values = np.random.default_rng(0).standard_normal(shape)
    values[..., -1] = value
    image = to_image(layer_figure(values, "$\\frac{$ layer"))
    assert image.std() > 0


def test_a_saved_picture_is_a_png_of_the_same_pixels(tmp_path):
    save(confusion_figure(np.eye(3, dtype=int), CLASSES[:3]), tmp_path / "new" / "picture.png")
    pixels = to_image(confusion_figure(np.eye(3, dtype=int), CLASSES[:3]))
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image)[..., :3], pixels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_pyplot_and_its_global_state_are_not_used():
    code = (
        "import sys; from logger.figures import *; assert 'matplotlib' not in sys.modules;"
        "to_image(confusion_figure([[1, 0], [0, 1]], 'ab')); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
