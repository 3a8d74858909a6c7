"""HTML pages that need nothing else: pictures are in them (base64), styles too, no script."""

import base64
import html
import io
from pathlib import Path

import PIL.Image
from matplotlib.figure import Figure

from research.figures import saving

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0; }
nav a { margin-right: .8rem; } .paper, .skipped { color: #707070; }
img { max-width: 100%; height: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; }
td, th { padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #bbb; } .number { font-variant-numeric: tabular-nums; }
code { background: #f3f3f3; padding: .1rem .3rem; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #d08000; padding-left: .6rem; }
.verdict { border-left: 4px solid #2a6fbb; padding-left: .6rem; }
"""
WIDEST = 900  # pixels of a picture


def document(title: str, body: str) -> str:
    """Returns a whole page.

    Args:
      title: plain text; also the page's first heading.
      body: HTML.
    """
    said = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{said}</title><style>{STYLE}</style></head><body>"
        f"<h1>{said}</h1>{body}</body></html>\n"
    )


def picture(name: str, shown: Figure | Path) -> str:
    """Returns an <img> that holds a figure, or a file's picture, at most WIDEST pixels wide."""
    source: Path | io.BytesIO = io.BytesIO()
    if isinstance(shown, Path):
        source = shown
    else:
        saving.save(shown, source, dpi=100, bbox_inches="tight")
    image: PIL.Image.Image = PIL.Image.open(source)
    image.thumbnail((WIDEST, 10 * WIDEST))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/webp;base64,{data}">'
