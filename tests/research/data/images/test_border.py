"""Border weights against a loop over pixels and cells."""

import numpy as np

from research.data.images.border import border_weights


def test_border_weights_are_equation_2():
    mask = np.zeros((9, 12), "u1")
    mask[1:4, 1:4], mask[1:4, 5:8] = 1, 1  # two cells of one class, two pixels apart
    mask[6:8, 2:9] = 2
    mask[4, 10] = 255
    cells = [
        [(i, j) for i in range(1, 4) for j in range(1, 4)],
        [(i, j) for i in range(1, 4) for j in range(5, 8)],
        [(i, j) for i in range(6, 8) for j in range(2, 9)],
    ]
    expected = np.zeros(mask.shape)
    for i in range(9):
        for j in range(12):
            if mask[i, j] == 0:
                d = sorted(min(np.hypot(i - y, j - x) for y, x in cell) for cell in cells)
                expected[i, j] = 10 * np.exp(-((d[0] + d[1]) ** 2) / (2 * 5**2))
    np.testing.assert_allclose(border_weights(mask), expected, rtol=1e-5)
    narrow = border_weights(mask, strength=2.0, sigma=0.7)  # cells are looked at one by one
    np.testing.assert_allclose(narrow, 2 * (expected / 10) ** (25 / 0.49), atol=2e-6)
    assert border_weights(mask)[2, 4] == border_weights(mask).max()  # the gap
    one = np.where(mask == 2, mask, 0)
    assert not border_weights(one).any()  # a single cell has no second
