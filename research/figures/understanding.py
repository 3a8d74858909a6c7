"""Pictures for looking into a network: heat maps, changed images, tiles, maps, curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

QUIET = "#707070"
CUT = 99.0  # percentile of a heat map that is shown as its largest value


def show(ax: Axes, image: Num[np.ndarray, "height width channel"], title: str = "") -> None:
    """Shows an image without axes; grey if it has one channel."""
    pixels = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    if pixels.shape[-1] == 3:
        ax.imshow(pixels)
    else:
        ax.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=9)


def show_heat(
    ax: Axes,
    heat: Float[np.ndarray, "rows columns"],
    below: Num[np.ndarray, "height width channel"] | None = None,
    title: str = "",
) -> None:
    """Shows a heat map over the image `below`; signed maps are blue below 0 and red above."""
    limit = max(float(np.percentile(np.abs(heat), CUT)), 1e-12)
    signed = bool((heat < 0).any())
    if below is not None:
        show(ax, below)
    colours = "bwr" if signed else "inferno"
    height, width = (below if below is not None else heat).shape[:2]
    ax.imshow(
        heat,
        cmap=colours,
        vmin=-limit if signed else 0,
        vmax=limit,
        alpha=0.5 if below is not None else None,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest" if below is None else "bilinear",
    )
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=9)


def _figure(rows: int, columns: int, tile: float = 2.6) -> Figure:
    return Figure(figsize=(columns * tile, rows * (tile + 0.3)), dpi=120, layout="constrained")


def heat_maps(
    images: Num[np.ndarray, "n height width channel"],
    maps: Float[np.ndarray, "n rows columns"],
    captions: Sequence[str],
    name: str,
) -> Figure:
    """Draws a row for each image: the image, the map, the map over the image."""
    figure = _figure(len(images), 3)
    for i, (image, heat) in enumerate(zip(images, maps, strict=True)):
        axes = [figure.add_subplot(len(images), 3, 3 * i + j + 1) for j in range(3)]
        show(axes[0], image, captions[i])
        show_heat(axes[1], heat, title=name)
        show_heat(axes[2], heat, image)
    return figure


def changes(
    before: Num[np.ndarray, "n height width channel"] | None,
    after: Num[np.ndarray, "n height width channel"],
    captions: Sequence[tuple[str, str]],
) -> Figure:
    """Draws a row for each image: before, after, and, with `before`, the enlarged difference."""
    columns = 1 if before is None else 3
    figure = _figure(len(after), columns, 3.2)
    for i, image in enumerate(after):
        place = columns * i + 1
        if before is None:
            show(figure.add_subplot(len(after), 1, place), image, captions[i][1])
            continue
        change = image.astype(np.float32) - before[i]
        largest = max(float(np.abs(change).max()), 1e-12)
        show(figure.add_subplot(len(after), 3, place), before[i], captions[i][0])
        show(figure.add_subplot(len(after), 3, place + 1), image, captions[i][1])
        title = f"change, times {127 / largest:.3g}"
        show(figure.add_subplot(len(after), 3, place + 2), 127.5 + 127.5 * change / largest, title)
    return figure


def strips(
    images: Num[np.ndarray, "n times height width channel"],
    captions: Sequence[Sequence[str]],
) -> Figure:
    """Draws a row for each image: it at several times, side by side, a caption below each."""
    rows, columns = images.shape[:2]
    figure = _figure(rows, columns, 2.2)
    for i in range(rows):
        for j in range(columns):
            ax = figure.add_subplot(rows, columns, i * columns + j + 1)
            show(ax, images[i, j])
            ax.text(
                *(0.5, -0.04),
                captions[i][j],
                fontsize=8,
                horizontalalignment="center",
                verticalalignment="top",
                transform=ax.transAxes,
            )
    return figure


def segmentations(
    images: Num[np.ndarray, "n height width channel"],
    saliency: Float[np.ndarray, "n height width"],
    masks: Sequence[Bool[np.ndarray, "height width"]],
    captions: Sequence[str],
    title: str = "saliency",
) -> Figure:
    """Draws a row for each image: the image, its saliency or another map, the object on white."""
    figure = _figure(len(images), 3)
    for i, image in enumerate(images):
        axes = [figure.add_subplot(len(images), 3, 3 * i + j + 1) for j in range(3)]
        show(axes[0], image, captions[i])
        show_heat(axes[1], saliency[i], title=title)
        alone = np.where(masks[i][..., None], image, 255)
        show(axes[2], alone, f"{100 * masks[i].mean():.0f} % of pixels")
    return figure


def signed_pixels(
    values: Float[np.ndarray, "height width channel"],
) -> UInt8[np.ndarray, "height width channel"]:
    """Returns a picture of signed values: grey is 0, the largest by size is black or white."""
    limit = max(float(np.abs(values).max()), 1e-12)
    return np.rint(127.5 + 127.5 * values / limit).astype(np.uint8)


def tiles(
    images: Sequence[Num[np.ndarray, "height width channel"]],
    title: str,
    columns: int = 0,
    captions: Sequence[str] = (),
) -> Figure:
    """Draws small images in a grid."""
    columns = columns or max(int(np.ceil(np.sqrt(len(images)))), 1)
    rows = -(-len(images) // columns)
    size = min(1.2, 10 / columns)
    figure = Figure(
        figsize=(max(columns * size, 3.0), rows * (size + 0.25 * bool(captions)) + 0.5),
        dpi=120,
        layout="constrained",
    )
    for i, image in enumerate(images):
        caption = captions[i] if captions else ""
        ax = figure.add_subplot(rows, columns, i + 1)
        show(ax, image)
        if caption:
            ax.set_title(caption, fontsize=7)
    figure.suptitle(title, fontsize=10, color=QUIET)
    return figure


def thumbnails(
    places: Float[np.ndarray, "n 2"],
    images: Sequence[Num[np.ndarray, "height width channel"]],
    title: str,
    side: float = 18.0,
) -> Figure:
    """Draws images at their places on a plane; `side` is the images', in points."""
    figure = Figure(figsize=(10, 10), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    ax.scatter(places[:, 0], places[:, 1], s=1, alpha=0.0)
    for place, image in zip(places, images, strict=True):
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        pixels = pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1)
        picture = OffsetImage(pixels, zoom=side / max(pixels.shape[:2]))
        ax.add_artist(AnnotationBbox(picture, tuple(place), frameon=False))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=11, color=QUIET)
    return figure


def curves(
    x: Float[np.ndarray, " shares"],
    lines: Mapping[str, Float[np.ndarray, " shares"]],
    x_label: str,
    y_label: str,
) -> Figure:
    """Draws named lines over a shared axis."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    for name, line in lines.items():
        ax.plot(x, line, label=name, linewidth=1.8)
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def pairs(
    left: Num[np.ndarray, "n height width channel"],
    right: Num[np.ndarray, "n height width channel"],
    captions: Sequence[tuple[str, str]],
) -> Figure:
    """Draws two images in each row."""
    figure = _figure(len(left), 2, 3.2)
    for i, titles in enumerate(captions):
        for j, images in enumerate((left, right)):
            show(figure.add_subplot(len(left), 2, 2 * i + j + 1), images[i], titles[j])
    return figure


def sanity(
    image: Num[np.ndarray, "height width channel"],
    maps: Float[np.ndarray, "kinds levels height width"],
    edges: Float[np.ndarray, "height width"],
    kinds: Sequence[str],
    levels: Sequence[str],
) -> Figure:
    """Draws a row for each kind of map: the image, the map at each level, and the image's edges."""
    columns = len(levels) + 2
    figure = _figure(len(kinds), columns, 2.0)
    for i, kind in enumerate(kinds):
        place = i * columns + 1
        show(figure.add_subplot(len(kinds), columns, place), image, kind)
        for j, level in enumerate(levels):
            show_heat(
                figure.add_subplot(len(kinds), columns, place + j + 1), maps[i, j], title=level
            )
        show_heat(
            figure.add_subplot(len(kinds), columns, place + columns - 1), edges, title="edges"
        )
    return figure
