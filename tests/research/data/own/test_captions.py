import json

import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.own import caption_files
from research.data.tasks import captioning
from research.errors import UserError

FILES = [f"{i}_a.jpg" for i in range(10)]
SAID = {f: [f"A dog number {i} .", "Two cats, asleep"] for i, f in enumerate(FILES)}


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i, name in enumerate(FILES):
        cv2.imwrite(str(images / name), np.full((6, 8, 3), i * 20, np.uint8))
    return images


def token_file(said):
    return "".join(
        f"{f}#{k}\t{text}\n" for f, texts in said.items() for k, text in enumerate(texts)
    )


def csv_file(said):
    rows = ["image,caption"]
    return "\n".join(rows + [f'{f},"{text}"' for f, texts in said.items() for text in texts])


def pipes(said):  # Flickr30k's results.csv
    rows = ["image_name| comment_number| comment"]
    rows += [f"{f}| {k}| {t}" for f, texts in said.items() for k, t in enumerate(texts)]
    return "\n".join(rows)


def coco(said):
    return json.dumps(
        {
            "images": [{"id": 7 * i, "file_name": f} for i, f in enumerate(said)],
            "annotations": [
                {"id": 100 * i + k, "image_id": 7 * i, "caption": text}
                for i, texts in enumerate(said.values())
                for k, text in enumerate(texts)
            ],
        }
    )


def karpathy(said):
    return json.dumps(
        {
            "images": [
                {"filename": f, "split": s, "sentences": [{"raw": t} for t in said[f]]}
                for f, s in zip(said, ["restval", "train", "val", "test", "train"] * 2, strict=True)
            ]
        }
    )


FORMS = {
    "tokens": token_file,
    "csv": csv_file,
    "pipes": pipes,
    "json": json.dumps,
    "rows": lambda said: json.dumps([{"image": f, "captions": t} for f, t in said.items()]),
    "one caption a row": lambda said: json.dumps(
        [{"file_name": f, "caption": t} for f, texts in said.items() for t in texts]
    ),
    "coco": coco,
    "karpathy": karpathy,
}


def load(folder, content, encoding="utf-8", **options):
    file = folder.parent / "captions.txt"
    file.write_bytes(content.encode(encoding))
    return datasets.load(
        f"captions:{folder}:{file}", str(folder.parent / "data"), captioning.TASK, **options
    )


def pairs(dataset):
    found = {}
    for split in dataset.splits.values():
        for i, texts in enumerate(captioning.captions(split)):
            example = split[i]
            assert example["captions"].tolist() == texts
            found[FILES[round(float(example["image"].mean()) / 20)]] = texts
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_sentences(folder, form):
    dataset = load(folder, FORMS[form](SAID))
    assert pairs(dataset) == SAID
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    named = {"train": 6, "validation": 2, "test": 2}
    assert sizes == (named if form == "karpathy" else {"train": 8, "test": 2})
    assert captioning.inspect(dataset) == []


def test_a_comma_that_nobody_quoted_belongs_to_the_caption(folder):
    rows = [f"{f},{text}" for f, texts in SAID.items() for text in texts]
    assert pairs(load(folder, "\n".join(["image,caption", *rows]))) == SAID


def test_flickr8ks_lists_beside_the_token_file_are_the_splits(folder):
    for suffix, part in {"trainImages": FILES[:6], "testImages": FILES[6:9]}.items():
        (folder.parent / f"Flickr_8k.{suffix}.txt").write_text("\n".join(part) + "\n")
    dataset = load(folder, token_file(SAID))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "test": 3}
    assert "images: 10 found, 9 used, 1 left out (in no list: 1)" in dataset.citation
    assert "captions: 20 found, 18 used, 2 left out (in no list: 2)" in dataset.citation


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_as_elsewhere_and_blank_ones_come_first(folder, end):
    (folder / "._0_a.jpg").write_bytes(b"what other systems leave beside a file")
    assert pairs(load(folder, "\n" + csv_file(SAID).replace("\n", end))) == SAID


def test_a_file_may_begin_with_a_byte_order_mark(folder):
    assert pairs(load(folder, csv_file(SAID), "utf-8-sig")) == SAID


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("nothing of the sort", "names no columns image and caption"),
        ("image,caption,split\n0_a.jpg,x", r"line 2 has 2 columns, the first line 3"),
        (token_file(SAID) + "more words\n", r"line 21 is not IMAGE#NUMBER"),
        ('{"0_a.jpg": ["a dog",]}', r"is no JSON \(line 1"),
        ('[{"caption": "a dog"}]', "entry 0 needs the keys image and captions"),
        ('{"0_a.jpg": []}', "0_a.jpg has no caption"),
        ('[{"image": "0_a.jpg", "caption": "a", "split": "sample"}]', "'sample' is no split"),
        ('{"images": [], "annotations": [{"image_id": 3}]}', "annotation 0 needs a caption"),
        ('{"images": [{"id": 3}], "annotations": []}', "image 0 needs an id and a file_name"),
        ('{"images": [], "annotations": ["a dog"]}', "annotation 0 needs a caption"),
        ('{"0_a.jpg": 3}', "entry 0 needs the keys image and captions"),
        ('{"0_a.jpg": {"caption": "a dog"}}', "entry 0 needs the keys image and captions"),
        ('image,caption\n0_a.jpg,"a dog\n1_a.jpg,a cat', "line 3 is no CSV .*not closed"),
        ("image,caption,split\na,x,train\na,y,test", "line 3: a is in the split test here, and in"),
        ('image,caption\n0_a.jpg,"' + "a dog " * 30_000, "is no CSV"),
        (token_file({**SAID, "0_a.jpg": ["a dog", " . "]}), r"line 2: the caption of 0_a.jpg is "),
        (token_file({**SAID, "x.jpg": ["a dog"]}), r"1 captioned images are not in .*x\.jpg"),
        (token_file(dict(list(SAID.items())[:8])), r"no caption for 2 images .* 8_a\.jpg"),
    ],
)
def test_bad_files_are_one_clear_line(folder, content, message):
    with pytest.raises(UserError, match=message) as error:
        load(folder, content)
    assert "captions.txt" in str(error.value) and "\n" not in str(error.value)


def test_another_encoding_is_named_with_the_place(folder):
    with pytest.raises(UserError, match=r"captions.txt: is not UTF-8 \(byte 7\); convert it"):
        load(folder, '{"x": "é"}', "latin-1")


def test_what_does_not_match_can_be_left_out(folder, capsys):
    (folder / FILES[1]).write_bytes(b"no image")
    said = {**SAID, "x.jpg": ["a dog"]}
    said.pop(FILES[0])
    dataset = load(folder, token_file(said), skip_corrupt=True)
    expected = {f: texts for f, texts in SAID.items() if f not in FILES[:2]}
    assert pairs(dataset) == expected
    said = capsys.readouterr().out
    assert "images: 10 found, 8 used, 2 left out (without caption: 1, unreadable: 1)" in said
    assert "captions: 19 found, 16 used, 3 left out (without a readable image: 3)" in said


@pytest.mark.parametrize("name", ["captions:", "captions:x", "captions:x:y", "captions:.:missing"])
def test_names_that_lead_nowhere(name, tmp_path):
    with pytest.raises(UserError, match=r"IMAGES_DIR:FILE|no folder|cannot be read"):
        datasets.load(name, str(tmp_path), captioning.TASK)


def test_an_unreadable_image_is_found_by_inspection(folder):
    dataset = load(folder, token_file(SAID))
    (folder / FILES[0]).write_bytes(b"gone bad since")
    (problem,) = captioning.inspect(dataset)
    assert "0_a.jpg: is damaged, or no image" in problem


def test_lines_know_where_they_stand(tmp_path):
    (tmp_path / "a.txt").write_text("a.jpg#0\tone\n\na.jpg#1\ttwo\n")
    where = [line.where.rpartition(" ")[2] for line in caption_files.lines(tmp_path / "a.txt")]
    assert where == ["1", "3"]


def test_line_ends_between_quotation_marks_are_spaces(folder):
    said = {f: [text.replace(" ", "\n", 1) for text in texts] for f, texts in SAID.items()}
    assert pairs(load(folder, csv_file(said))) == SAID


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'image,caption\n0_a.jpg,"a dog",extra',
            r"line 2 has 3 columns, the first line 2; write cap",
        ),
        ("caption,image\na dog, asleep,0_a.jpg", r"line 2 has 3 columns, the first line 2; write"),
        ('image,caption\n0_a.jpg,"a dog\n1_a.jpg,a "cat"', r"line 3 is no CSV .*not closed"),
        ('image,caption\n0_a.jpg,"a dog\n1_a.jpg,a cat"', "line 3: a caption goes on over lines"),
        ('{"0_a.jpg": ["a dog"], "0_a.jpg": ["a cat"]}', r"'0_a\.jpg' is there twice"),
        (
            '{"images": [{"id": 1, "file_name": "0_a.jpg"}, {"id": 1, "file_name": "1_a.jpg"}], '
            '"annotations": []}',
            r"image 1, 1_a\.jpg: has the id 1, as 0_a\.jpg before it",
        ),
        (
            '{"images": [{"id": null, "file_name": "0_a.jpg"}], "annotations": []}',
            "no number or tex",
        ),
        (
            '{"images": [], "annotations": [{"image_id": [1], "caption": "a"}]}',
            "annotation 0 needs",
        ),
        ('{"../0_a.jpg": ["a dog"]}', r"'\.\./0_a\.jpg' leads out of"),
        ('{"/0_a.jpg": ["a dog"]}', r"'/0_a\.jpg' leads out of"),
    ],
)
def test_rows_with_no_one_meaning_are_named(folder, content, message):
    with pytest.raises(UserError, match=message):
        load(folder, content)


def test_marks_that_enclose_nothing_belong_to_flickr30ks_captions(folder):
    said = {f: ['" shaggy " dogs', '"cats'] for f in FILES}
    assert pairs(load(folder, pipes(said))) == said


def test_names_of_files_may_be_written_in_another_way(folder):
    (folder / "sub").mkdir()
    (folder / FILES[0]).rename(folder / "sub" / "e\u0301.jpg")  # as macOS has it
    said = {f".\\{f}": texts for f, texts in SAID.items()}
    said["sub\\é.jpg"] = said.pop(f".\\{FILES[0]}")
    assert sorted(pairs(load(folder, json.dumps(said)))) == sorted(SAID)


def test_scripts_without_spaces_are_told_of(folder, capsys):
    said = {**SAID, FILES[3]: ["一只狗", "สุนัข"]}
    dataset = load(folder, csv_file(said))
    line = "captions without spaces, whose characters count as words: 2"
    assert line in capsys.readouterr().out and line in dataset.citation
