"""A sheet shows every picture once, with its line."""

import numpy as np
from matplotlib.figure import Figure

from research.figures.sheet import sheet


def test_a_sheet_shows_figures_and_images_each_with_its_line():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().imshow(np.zeros((2, 2)))
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (5, 9, 3))
    grey = np.full((4, 6, 1), 7, np.uint8)
    made = sheet([{"a": figure}, {"b": red, "c": grey}, {}], ["one", "zwölf äöü", "none"])
    images = [ax.get_images()[0].get_array() for ax in made.axes]
    assert [ax.get_title(loc="left") for ax in made.axes] == ["one", "zwölf äöü", "none"]
    assert images[0].shape[2] == 3 and images[0].std() > 0
    # The second tile: red, and grey below it, on white.
    assert images[1].shape == (9, 9, 3) and (images[1][:5] == [255, 0, 0]).all()
    assert (images[1][5:, :6] == 7).all() and (images[1][5:, 6:] == 255).all()


def test_fifty_tiles_of_any_shape_fit_on_a_page():
    for count, height, width in ((50, 20, 20), (8, 10, 40), (8, 8, 80)):
        tiles = [{"x": np.zeros((height, width, 3), np.uint8)}] * count
        made = sheet(tiles, [str(k) for k in range(count)])
        across, down = made.get_size_inches()
        assert len(made.axes) == count and 14 < across <= 16 and 2 < down < 30
