"""The methods by name; imports no JAX."""

from typing import Literal, NamedTuple

from rich.table import Column, Table

from research.progress import console


class Method(NamedTuple):
    """Attributes:
    kind: what it does: optimises an image, looks at an image, or surveys a network or data set.
    summary: in one line.
    paper: authors and year.
    """

    kind: Literal["optimise", "look", "survey"]
    summary: str
    paper: str


METHODS = {
    "visualise": Method(
        "optimise",
        "the image that a class or a unit responds to most, by gradient ascent on its score",
        "Simonyan et al. 2013; Yosinski et al. 2015; Olah et al. 2017",
    ),
    "invert": Method(
        "optimise",
        "an image in which a layer sees what it saw in the input",
        "Mahendran and Vedaldi 2014",
    ),
    "dream": Method(
        "optimise",
        "the input changed so that a layer sees more of what it sees, over octaves",
        "Mordvintsev et al. 2015",
    ),
    "style": Method(
        "optimise",
        "the input painted in the style of another picture: content and Gram-matrix losses",
        "Gatys et al. 2015",
    ),
    "fool": Method(
        "optimise",
        "the input, changed by gradient steps until it is called --class (or anything else)",
        "Szegedy et al. 2013; Nguyen et al. 2014",
    ),
    "fgsm": Method(
        "optimise",
        "one step along the gradient's sign, no value by more than --epsilon",
        "Goodfellow et al. 2014",
    ),
    "pgd": Method(
        "optimise",
        "many small steps within --epsilon of the input, L-infinity or L2",
        "Madry et al. 2017",
    ),
    "smallest": Method(
        "look",
        "the smallest change found that changes the answer: PGD and bisection over its radius",
        "Madry et al. 2017",
    ),
    "saliency": Method(
        "look", "largest |gradient| of the score over each pixel's channels", "Simonyan et al. 2013"
    ),
    "smooth_grad": Method(
        "look", "the size of the mean gradient of noisy copies of the input", "Smilkov et al. 2017"
    ),
    "smooth_saliency": Method(
        "look",
        "the mean saliency of the same copies: gradients of opposite sign do not cancel",
        "after Smilkov et al. 2017",
    ),
    "gradient_times_input": Method(
        "look", "gradient times (input - mean image), summed over channels", "Shrikumar et al. 2016"
    ),
    "integrated_gradients": Method(
        "look",
        "gradients along the line from the mean image; they sum to the score's difference",
        "Sundararajan et al. 2017",
    ),
    "guided_backpropagation": Method(
        "look",
        "the gradient where ReLUs let positive gradients of active units pass alone",
        "Springenberg et al. 2014",
    ),
    "deconvnet": Method(
        "look", "the gradient where ReLUs rectify on the way back", "Zeiler and Fergus 2013"
    ),
    "grad_cam": Method(
        "look",
        "the last maps, each weighted by the mean gradient of the score in it",
        "Selvaraju et al. 2016",
    ),
    "occlusion": Method(
        "look", "the probability with a patch covered, for each place", "Zeiler and Fergus 2013"
    ),
    "segmentation": Method(
        "look",
        "the object's pixels: GrabCut started from saliency, no labels",
        "Simonyan et al. 2013",
    ),
    "activations": Method(
        "look", "the maps of the strongest units of a layer", "Yosinski et al. 2015"
    ),
    "deletion": Method(
        "look",
        "how the score falls as the most salient pixels are removed, against random ones",
        "Petsiuk et al. 2018",
    ),
    "randomisation": Method(
        "look",
        "saliency of a network whose weights are shuffled from the top down: a sanity check",
        "Adebayo et al. 2018",
    ),
    "filters": Method(
        "survey",
        "the filters of a convolution as images, the first by default",
        "Krizhevsky et al. 2012",
    ),
    "patches": Method(
        "survey",
        "the parts of a data set's images that most excite a unit, as large as its receptive field",
        "Zeiler and Fergus 2013; Girshick et al. 2013",
    ),
    "dead_units": Method(
        "survey", "units of a layer that no image of a data set activates", "Zeiler and Fergus 2013"
    ),
    "neighbours": Method(
        "survey",
        "nearest images by last-layer features or by embedding, against nearest by pixels",
        "Krizhevsky et al. 2012",
    ),
    "map": Method(
        "survey",
        "a data set on a plane, by PCA or t-SNE of the same, as thumbnails",
        "van der Maaten and Hinton 2008",
    ),
}
# What answers without a run.
ANSWERS = ("list", "layers")


def show_methods() -> None:
    """Prints --method=list."""
    titles = {
        "optimise": "optimise an image",
        "look": "look at an image",
        "survey": "survey a network or a data set",
    }
    for kind, title in titles.items():
        table = Table(Column(title, no_wrap=True), "", Column(style="dim"), box=None)
        for name, method in METHODS.items():
            if method.kind == kind:
                table.add_row(f"--method={name}", method.summary, method.paper)
        console().print(table, "")
