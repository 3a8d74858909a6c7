"""Regions that may show an object, found by grouping pixels; on the host, without learning.

In the style of Uijlings et al., "Selective search for object recognition", 2013: many small regions
are merged, the most similar neighbours first, and the box of every region, first or merged, is a
proposal. Here the first regions are connected pixels of one of a few colours (k-means), where the
paper starts from Felzenszwalb and Huttenlocher's segmentation; textures are not compared.
"""

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8

COLOURS = (5, 9)  # numbers of colours; each gives a set of first regions
SMALLEST = 8  # pixels of a first region; smaller ones are left out
MOST = 80  # first regions of a set that take part, the largest; more where count asks for more


def propose(
    image: UInt8[np.ndarray, "height width 3"], count: int = 200
) -> Float32[np.ndarray, "{count} 4"]:
    """Returns boxes (x0, y0, x1, y1) in pixels: first regions and late merges, alternating.

    If there are more than `count`, first regions are left out at random, not by their place; if
    there are fewer, boxes without area fill up. The same image always gives the same boxes.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    random = np.random.RandomState(0)
    # n first regions make up to 2 n - 1 boxes.
    most = max(MOST, count // (2 * len(COLOURS)) + 1)
    # Level of the merge (0: none yet) and box; late merges are large.
    found: list[tuple[int, tuple[int, int, int, int]]] = []
    for colours in COLOURS:
        found += _grouped(lab, _first_regions(lab, colours, most, random))
    height, width = image.shape[:2]
    boxes: dict[tuple[int, int, int, int], int] = {}
    for level, box in found:
        if min(box[2] - box[0], box[3] - box[1]) >= 4 and box != (0, 0, width, height):
            boxes[box] = max(level, boxes.get(box, 0))
    # Small and large objects alike, and of one level the whole image alike.
    lots = dict(zip(boxes, random.permutation(len(boxes)).tolist(), strict=True))
    ordered = sorted(boxes, key=lambda box: (boxes[box], lots[box]))
    early, late = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :][::-1]
    turns = [box for pair in zip(early, late, strict=False) for box in pair] + late[len(early) :]
    proposals = np.zeros((count, 4), np.float32)
    chosen = turns[:count]
    if chosen:
        proposals[: len(chosen)] = chosen
    return proposals


def _first_regions(
    lab: Float32[np.ndarray, "height width 3"],
    colours: int,
    most: int,
    random: np.random.RandomState,
) -> Int[np.ndarray, "height width"]:
    """Returns the number of each pixel's region, from 1; 0 for regions that are left out."""
    pixels = lab.reshape(-1, 3)
    # Starting from ranks of brightness, not at random: the same regions every time.
    rank = np.argsort(np.argsort(pixels[:, 0], kind="stable"), kind="stable")
    start = (rank * colours // len(rank)).astype(np.int32)[:, None]
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 6, 1.0)
    _, label, _ = cv2.kmeans(pixels, colours, start, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    label = label.reshape(lab.shape[:2])
    regions = np.zeros(lab.shape[:2], np.int32)
    sizes: list[int] = [0]  # pixels of each region, by its number
    number = 0
    for colour in range(colours):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (label == colour).astype(np.uint8), connectivity=8
        )
        regions = np.where(parts > 0, parts + number, regions)
        sizes += stats[1:, cv2.CC_STAT_AREA].tolist()
        number += count - 1
    area = np.array(sizes)
    lots = random.permutation(len(area))  # of equal ones, not the lowest in the image
    kept = np.lexsort((lots, -area))[:most]
    kept = kept[area[kept] >= SMALLEST]
    table = np.zeros(number + 1, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[regions]


def _grouped(
    lab: Float32[np.ndarray, "height width 3"], regions: Int[np.ndarray, "height width"]
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Returns (level, box) of every first region, at level 0, and of every merge, counted from 1.

    Similarity is the paper's, without texture: colour, size (small ones merge early) and fill (how
    well the two fill the box around both).
    """
    n = int(regions.max())
    if n == 0:
        return []
    flat = regions.reshape(-1)
    size = np.bincount(flat, minlength=n + 1)[1:].astype(np.float64)
    totals = np.stack(
        [np.bincount(flat, lab[..., k].reshape(-1), minlength=n + 1)[1:] for k in range(3)], axis=1
    )
    colour = totals / size[:, None]
    boxes = np.zeros((n, 4))
    rows, columns = np.indices(regions.shape)
    for axis, values in ((0, columns), (1, rows)):
        low, high = np.full(n + 1, np.inf), np.full(n + 1, -np.inf)
        np.minimum.at(low, flat, values.reshape(-1))
        np.maximum.at(high, flat, values.reshape(-1))
        boxes[:, axis], boxes[:, 2 + axis] = low[1:], high[1:] + 1
    # Neighbours: up to three pixels apart, as left-out regions lie between.
    near = np.zeros((n + 1, n + 1), bool)
    for step in (1, 2, 3):
        near[regions[:, step:], regions[:, :-step]] = True
        near[regions[step:], regions[:-step]] = True
    near = (near | near.T)[1:, 1:]
    np.fill_diagonal(near, False)

    total = float(regions.size)
    found = [(0, _box(box)) for box in boxes]

    def similarity(i: int) -> np.ndarray:
        """Returns region i's similarity to every other; minus infinity if not neighbours."""
        off = np.abs(colour - colour[i]).sum(1) / 255
        around = np.concatenate(
            [np.minimum(boxes[:, :2], boxes[i, :2]), np.maximum(boxes[:, 2:], boxes[i, 2:])], axis=1
        )
        hull = (around[:, 2:] - around[:, :2]).prod(1)
        both = size + size[i]
        return np.where(
            near[i], (1 - off) + (1 - both / total) + (1 - (hull - both) / total), -np.inf
        )

    table = np.stack([similarity(i) for i in range(n)])
    for level in range(1, n):
        i, j = np.unravel_index(table.argmax(), table.shape)
        if table[i, j] == -np.inf:
            break
        share = size[j] / (size[i] + size[j])
        colour[i] = (1 - share) * colour[i] + share * colour[j]
        size[i] += size[j]
        boxes[i] = [
            *np.minimum(boxes[i, :2], boxes[j, :2]),
            *np.maximum(boxes[i, 2:], boxes[j, 2:]),
        ]
        near[i] |= near[j]
        near[:, i] |= near[:, j]
        near[j], near[:, j], near[i, i] = False, False, False
        table[j], table[:, j] = -np.inf, -np.inf
        table[i] = table[:, i] = similarity(int(i))
        found.append((level, _box(boxes[i])))
    return found


def _box(values: np.ndarray) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in values)
    return x0, y0, x1, y1
