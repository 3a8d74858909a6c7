"""glyphs: 1,187 characters of 13 scripts in 16 typefaces that ship inside matplotlib, 28x28.

Letters without a decomposition that at least four faces have, one image for each face, turned,
leaned, scaled and shifted a little. Letters that look alike across scripts (Latin A, Greek Alpha,
Cyrillic A) are one class; see `merge`. Split by class: those tested on are never trained on.
"""

import importlib.util
import io
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse.csgraph import connected_components

from research.errors import UserError
from research.spacing import spaced

SIDE, BOX, FINE = 28, 20, 4  # pixels: image, ink before it is moved; subpixels a side of a pixel
FAMILIES = ("DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIX")
FACES = {
    "DejaVuSans": 0,
    "DejaVuSans-Bold": 0,
    "DejaVuSans-Oblique": 0,
    "DejaVuSans-BoldOblique": 0,
    "DejaVuSansMono": 1,
    "DejaVuSansMono-Bold": 1,
    "DejaVuSansMono-Oblique": 1,
    "DejaVuSansMono-BoldOblique": 1,
    "DejaVuSerif": 2,
    "DejaVuSerif-Bold": 2,
    "DejaVuSerif-Italic": 2,
    "DejaVuSerif-BoldItalic": 2,
    "STIXGeneral": 3,
    "STIXGeneralBol": 3,
    "STIXGeneralItalic": 3,
    "STIXGeneralBolIta": 3,
}
LEAST_FACES = 4
ALIKE = 0.08  # squared distance of two glyphs, as a share of their mean squared length
TEST_SHARE = 0.3

Glyph = UInt8[np.ndarray, "fine fine"]


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Characters, white on black; "family" says which typeface family an image is of."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Characters of many scripts, rendered from matplotlib's typefaces.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(),
                    "family": tfds.features.ClassLabel(names=list(FAMILIES)),
                    "face": tfds.features.ClassLabel(names=list(FACES)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://matplotlib.org",
            license="DejaVu fonts license; STIX font license",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        glyphs = render_all(font_folder())
        classes = merge(glyphs)
        self.info.features["label"].names = [class_name(members) for members in classes]
        test = spaced(len(classes), round(TEST_SHARE * len(classes)))
        train = np.setdiff1d(np.arange(len(classes)), test)
        return {
            "train": self._generate_examples(glyphs, classes, train),
            "test": self._generate_examples(glyphs, classes, test),
        }

    def _generate_examples(
        self, glyphs: Mapping[str, Mapping[int, Glyph]], classes: list[list[int]], chosen: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for label in chosen.tolist():
            for number, (face, family) in enumerate(FACES.items()):
                code = next((code for code in classes[label] if code in glyphs[face]), None)
                if code is None:
                    continue
                bits = np.random.MT19937(np.random.SeedSequence([code, number]))
                image = moved(glyphs[face][code], np.random.RandomState(bits))
                png = io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
                example = {"image": png, "label": label, "family": family, "face": number}
                yield f"{label:04d}_{number:02d}", example


def font_folder() -> Path:
    """Returns matplotlib's folder of fonts, without importing matplotlib."""
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        raise UserError("the data set glyphs needs the package matplotlib: pip install matplotlib")
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"


def is_wanted(code: int) -> bool:
    """Returns whether a code point is a basic letter, not one with an accent or in another form.

    Box drawing, Braille, digits and signs are no letters.
    """
    character = chr(code)
    return unicodedata.category(character) in (
        "Lu",
        "Ll",
        "Lt",
        "Lo",
    ) and not unicodedata.decomposition(character)


def render_all(folder: Path) -> dict[str, dict[int, Glyph]]:
    """Returns {face: {code point: glyph}} of the letters that at least LEAST_FACES faces have."""
    from matplotlib.ft2font import FT2Font

    have = {
        face: {c for c in FT2Font(str(folder / f"{face}.ttf")).get_charmap() if is_wanted(c)}
        for face in FACES
    }
    wanted = {c for codes in have.values() for c in codes}
    wanted = {c for c in wanted if sum(c in codes for codes in have.values()) >= LEAST_FACES}
    glyphs = {}
    for face, codes in have.items():
        font = ImageFont.truetype(
            str(folder / f"{face}.ttf"), 3 * SIDE, layout_engine=ImageFont.Layout.BASIC
        )
        drawn = {code: render(font, chr(code)) for code in sorted(codes & wanted)}
        glyphs[face] = {code: glyph for code, glyph in drawn.items() if glyph is not None}
    return glyphs


def render(font: ImageFont.FreeTypeFont, character: str) -> Glyph | None:
    """Draws a character, its ink scaled to fit the central box; None if there is no ink."""
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), character, fill=255, font=font)
    if (ink := canvas.getbbox()) is None:
        return None
    crop = np.asarray(canvas.crop(ink))
    scale = FINE * BOX / max(crop.shape)
    height, width = (max(round(scale * n), 1) for n in crop.shape)
    glyph = np.zeros((FINE * SIDE, FINE * SIDE), np.uint8)
    y, x = (FINE * SIDE - height) // 2, (FINE * SIDE - width) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    glyph[y : y + height, x : x + width] = cv2.resize(crop, (width, height), interpolation=method)
    return glyph


def shrink(glyph: Glyph) -> UInt8[np.ndarray, "side side"]:
    """Returns the mean of the subpixels of each pixel."""
    return cv2.resize(glyph, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def moved(glyph: Glyph, random: np.random.RandomState) -> UInt8[np.ndarray, "side side 1"]:
    """Turns by up to 8 degrees, leans by up to 8, scales by 0.85 to 1.05, shifts 1.5 pixels."""
    turn, lean, grow, right, down = random.uniform(-1, 1, 5)
    angle, scale = np.deg2rad(8 * turn), 0.95 + 0.1 * grow
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * rotation @ np.array([[1, np.tan(np.deg2rad(8 * lean))], [0, 1]])
    centre = np.full(2, (FINE * SIDE - 1) / 2)
    shift = centre - matrix @ centre + 1.5 * FINE * np.array([right, down])
    wide = cv2.warpAffine(glyph, np.c_[matrix, shift], glyph.shape[::-1], flags=cv2.INTER_LINEAR)
    return shrink(wide)[:, :, None]


def merge(glyphs: Mapping[str, Mapping[int, Glyph]]) -> list[list[int]]:
    """Groups code points into classes: those that look alike, directly or through others, are one.

    Two look alike where |a - b|² < ALIKE (|a|² + |b|²) / 2 in at least a quarter of the faces that
    have both.
    """
    codes = sorted({code for drawn in glyphs.values() for code in drawn})
    place = {code: i for i, code in enumerate(codes)}
    shared = np.zeros((len(codes), len(codes)), np.int32)
    alike = np.zeros_like(shared)
    for drawn in glyphs.values():
        pixels = np.stack([shrink(glyph).ravel() for glyph in drawn.values()])
        here = np.ix_(*[[place[code] for code in drawn]] * 2)
        shared[here] += 1
        alike[here] += relative_distances(pixels.astype(np.float32)) < ALIKE
    _, number = connected_components((shared > 0) & (4 * alike >= shared))
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return sorted([codes[i] for i in group.tolist()] for group in groups)


def relative_distances(x: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n n"]:
    """Returns |a - b|² as a share of (|a|² + |b|²) / 2."""
    squares = (x**2).sum(1)
    both = squares[:, None] + squares
    return 2 * (both - 2 * x @ x.T) / both


def class_name(members: list[int]) -> str:
    """Names a class by its first code point, such as "U+0041 LATIN CAPITAL LETTER A"."""
    return f"U+{members[0]:04X} {unicodedata.name(chr(members[0]))}"
