"""Options of a model; imports no JAX, so that --help answers at once."""

import dataclasses

from research.config import option


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Model"""

    model: str = option("convnet", "Architecture; --mode=list shows all with parameter counts.")
    model_options: tuple[str, ...] = option(
        (), "Attributes of the model, such as width=16,normalise=false,dropout=0.5,hidden=64+32."
    )
    activation: str = option("", "Nonlinearity, such as relu or tanh; empty: the model's own.")
    initializer: str = option(
        "", "Initialiser of kernels, such as he, xavier or zeros; empty: the model's own."
    )
