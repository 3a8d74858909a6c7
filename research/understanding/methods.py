"""The methods of looking into a network: one declaration each; imports no JAX.

A method is added here, with its function in a file of this folder.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from research.config import used_by
from research.understanding import config


class Method(NamedTuple):
    """A method of looking into a network.

    Attributes:
      kind: optimises an image, looks at images, surveys a network or a data set, or lists.
      summary: what it shows, in one line.
      paper: authors and year.
      function: "file.function" of this folder. It takes the `Question`; one that optimises returns
        an `Experiment`, others what makes the `Report`. One that lists takes what opens the
        network, and need not call it.
      options: the classes of flags that have an effect on it, of those that not every method uses.
      examples: images of the network's data set that it takes, evenly spaced, where no --inputs
        are given; 0 for a method that needs none, or takes the whole set.
    """

    kind: Literal["optimise", "look", "survey", "list"]
    summary: str
    paper: str
    function: str
    options: tuple[type, ...]
    examples: int = 4

    def load(self) -> Callable[..., Any]:
        """Imports its function, and with it JAX."""
        file, _, name = self.function.partition(".")
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"research.understanding.{file}"), name
        )
        return found


_UNIT = (config.Unit, config.ClassName, config.Place)  # ask about one unit
_FREE = (config.Steps, config.Start, config.Coordinates, config.TotalVariation)  # from nothing
_PAINTED = (config.WorkingSize, config.Steps, config.TotalVariation)  # of any size

METHODS = {
    "visualise": Method(
        "optimise",
        "the image that a class or a unit responds to most, by gradient ascent on its score",
        "Simonyan et al. 2013; Yosinski et al. 2015; Olah et al. 2017",
        "visualisation.visualise",
        (config.Inputs, *_UNIT, *_FREE, config.Jitter),
    ),
    "invert": Method(
        "optimise",
        "an image in which a layer sees what it saw in the input",
        "Mahendran and Vedaldi 2014",
        "inversion.invert",
        (config.Inputs, *_FREE, config.Solver),
    ),
    "dream": Method(
        "optimise",
        "the input changed so that a layer sees more of what it sees, over octaves",
        "Mordvintsev et al. 2015",
        "deep_dream.dream",
        (config.Inputs, config.Unit, *_PAINTED, config.Jitter, config.Octaves),
    ),
    "style": Method(
        "optimise",
        "the input painted in the style of another picture: content and Gram-matrix losses",
        "Gatys et al. 2015",
        "style_transfer.style",
        (config.Inputs, *_PAINTED, config.Start, config.Solver, config.Style),
    ),
    "fool": Method(
        "optimise",
        "the input, changed by gradient steps until it is called --class (or anything else)",
        "Szegedy et al. 2013; Nguyen et al. 2014",
        "attacks.attack",
        (config.Inputs, config.ClassName, config.Steps),
    ),
    "fgsm": Method(
        "optimise",
        "one step along the gradient's sign, no value by more than --epsilon",
        "Goodfellow et al. 2014",
        "attacks.attack",
        (config.Inputs, config.ClassName, config.Change, config.Steps),
    ),
    "pgd": Method(
        "optimise",
        "many small steps within --epsilon of the input, L-infinity or L2",
        "Madry et al. 2017",
        "attacks.attack",
        (config.Inputs, config.ClassName, config.Change, config.Steps),
    ),
    "smallest": Method(
        "look",
        "the smallest change found that changes the answer: PGD and bisection over its radius",
        "Madry et al. 2017",
        "attacks.smallest",
        (config.Inputs, config.ClassName, config.Change),
    ),
    "saliency": Method(
        "look",
        "largest |gradient| of the score over each pixel's channels",
        "Simonyan et al. 2013",
        "attribution.saliency",
        (config.Inputs, *_UNIT),
    ),
    "smooth_grad": Method(
        "look",
        "the size of the mean gradient of noisy copies of the input",
        "Smilkov et al. 2017",
        "attribution.smooth_grad",
        (config.Inputs, *_UNIT, config.Samples, config.Noise),
    ),
    "smooth_saliency": Method(
        "look",
        "the mean saliency of the same copies: gradients of opposite sign do not cancel",
        "after Smilkov et al. 2017",
        "attribution.smooth_saliency",
        (config.Inputs, *_UNIT, config.Samples, config.Noise),
    ),
    "gradient_times_input": Method(
        "look",
        "gradient times (input - mean image), summed over channels",
        "Shrikumar et al. 2016",
        "attribution.gradient_times_input",
        (config.Inputs, *_UNIT),
    ),
    "integrated_gradients": Method(
        "look",
        "gradients along the line from the mean image; they sum to the score's difference",
        "Sundararajan et al. 2017",
        "attribution.integrated_gradients",
        (config.Inputs, *_UNIT, config.Samples),
    ),
    "guided_backpropagation": Method(
        "look",
        "the gradient where ReLUs let positive gradients of active units pass alone",
        "Springenberg et al. 2014",
        "attribution.guided_backpropagation",
        (config.Inputs, *_UNIT),
    ),
    "deconvnet": Method(
        "look",
        "the gradient where ReLUs rectify on the way back",
        "Zeiler and Fergus 2013",
        "attribution.deconvnet",
        (config.Inputs, *_UNIT),
    ),
    "grad_cam": Method(
        "look",
        "the last maps, each weighted by the mean gradient of the score in it",
        "Selvaraju et al. 2016",
        "attribution.grad_cam",
        (config.Inputs, *_UNIT),
    ),
    "occlusion": Method(
        "look",
        "the probability with a patch covered, for each place",
        "Zeiler and Fergus 2013",
        "attribution.occlusion",
        (config.Inputs, *_UNIT, config.Occlusion),
    ),
    "segmentation": Method(
        "look",
        "the object's pixels: GrabCut started from saliency or Grad-CAM, no labels",
        "Simonyan et al. 2013",
        "attribution.segmentation",
        (config.Inputs, *_UNIT, config.Seeds),
    ),
    "activations": Method(
        "look",
        "the maps of the strongest units of a layer",
        "Yosinski et al. 2015",
        "units.activations",
        (config.Inputs,),
    ),
    "deletion": Method(
        "look",
        "how the score falls as the most salient pixels are removed, against random ones",
        "Petsiuk et al. 2018",
        "sanity_checks.deletion",
        (config.Inputs, *_UNIT),
        examples=100,
    ),
    "randomisation": Method(
        "look",
        "saliency of a network whose weights are shuffled from the top down: a sanity check",
        "Adebayo et al. 2018",
        "sanity_checks.randomisation",
        (config.Inputs, *_UNIT),
    ),
    "filters": Method(
        "survey",
        "the filters of a convolution as images, the first by default",
        "Krizhevsky et al. 2012",
        "units.filters",
        (),
        examples=0,
    ),
    "patches": Method(
        "survey",
        "the parts of a data set's images that most excite a unit, as large as its receptive field",
        "Zeiler and Fergus 2013; Girshick et al. 2013",
        "units.patches",
        (config.Inputs, config.Unit, config.Count, config.Explained),
        examples=0,
    ),
    "dead_units": Method(
        "survey",
        "units of a layer that no image of a data set activates",
        "Zeiler and Fergus 2013",
        "units.dead_units",
        (config.Inputs,),
        examples=0,
    ),
    "neighbours": Method(
        "survey",
        "nearest images by last-layer features or by embedding, against nearest by pixels",
        "Krizhevsky et al. 2012",
        "neighbourhood.neighbours",
        (
            config.Inputs,
            config.Count,
        ),
        examples=0,
    ),
    "map": Method(
        "survey",
        "a data set on a plane, by PCA or t-SNE of the same, as thumbnails",
        "van der Maaten and Hinton 2008",
        "neighbourhood.plane",
        (
            config.Inputs,
            config.Plane,
        ),
        examples=0,
    ),
    "list": Method("list", "these methods, each with its paper", "", "listing.methods", ()),
    "layers": Method("list", "the network's layers", "", "listing.layers", ()),
}
# The methods that a flag has an effect on, if not all.
USED_BY = used_by({name: method.options for name, method in METHODS.items()})
