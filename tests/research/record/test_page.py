"""Pages hold all they show."""

import base64
import io
import re

import PIL.Image
from matplotlib.figure import Figure

from research.record import page


def test_a_picture_is_in_the_page_and_no_wider_than_it():
    figure = Figure(figsize=(20, 2))
    figure.subplots().plot([0, 1])
    found = re.fullmatch(
        r'<img alt="a &lt;b&gt;" src="data:image/webp;base64,([^"]*)">',
        page.picture("a <b>", figure),
    )
    image = PIL.Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert image.width == page.WIDEST and 60 < image.height < 200


def test_titles_are_text_and_nothing_is_loaded():
    made = page.document("<script>a</script> & b", "<p>body</p>")
    assert made.count("&lt;script&gt;a&lt;/script&gt; &amp; b") == 2 and "<script" not in made
    assert "<p>body</p></body>" in made and "http" not in made and "url(" not in made
