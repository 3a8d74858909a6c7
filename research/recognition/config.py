"""Options of recognition by embeddings; imports no JAX, so --help answers at once."""

import dataclasses

from research.config import option


@dataclasses.dataclass(frozen=True)
class RecognitionConfig:
    """Prediction"""

    gallery: str = option(
        "",
        "Known identities: a folder with one subfolder or file for each, or the "
        "embeddings.npz that an earlier prediction left.",
        changes_result=False,
        saved=False,
        only=("predict",),
    )
    pairs: str = option(
        "",
        "CSV file of pairs to verify, two image files a line.",
        changes_result=False,
        saved=False,
        only=("predict",),
    )
    threshold: float = option(
        0.0,
        "Distance beyond which nobody is the same; 0: as was found when it was evaluated.",
        minimum=0.0,
        changes_result=False,
        saved=False,
        only=("predict",),
    )
