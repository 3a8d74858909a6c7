import numpy as np

from research.commands.predict import Predictions
from research.spacing import spaced


def test_some_of_the_files_are_predicted_as_all_of_them_are():
    files = [f"{i}.png" for i in range(7)]
    read = lambda part: {"image": np.array([float(name[:-4]) for name in part])}
    predict = lambda variables, batch: 10 * batch["image"] + batch["index"]
    predictions = Predictions(read, predict, {}, 3)
    positions, outputs = predictions.outputs(files)
    np.testing.assert_array_equal(positions, np.arange(7))
    np.testing.assert_array_equal(outputs, 11 * np.arange(7))
    # The picture beside many predictions: of files from all over, under their own numbers.
    ((part, outputs, batch),) = predictions(files, spaced(7, 3))
    assert part == ["1.png", "3.png", "5.png"]
    assert outputs.tolist() == [11, 33, 55] and batch["index"].tolist() == [1, 3, 5]
