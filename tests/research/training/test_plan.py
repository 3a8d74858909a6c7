from research.training.config import ImageTrainingConfig, TrainingConfig
from research.training.plan import long_run


def test_a_long_run_on_a_persons_own_data_is_announced_with_what_shortens_it():
    own = ImageTrainingConfig(dataset="folder:photos", epochs=12.5)
    assert long_run(own, 1800.0) == ""
    assert long_run(own, 5400.0) == (
        "the steps to come take about 1.5 h, without evaluations; a smaller --epochs (now 12.5) or "
        "--image_size shortens it"
    )
    steps = TrainingConfig(dataset="coco:a:b.json", steps=9000)
    assert long_run(steps, 5400.0).endswith("a smaller --steps (now 9000) shortens it")
    assert long_run(ImageTrainingConfig(dataset="digits"), 1e6) == ""
