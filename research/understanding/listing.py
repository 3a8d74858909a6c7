"""--method=layers: what can be asked about."""

from rich.table import Column, Table

from research.progress import console
from research.understanding.network import Network, layer_shapes
from research.understanding.receptive_fields import receptive_fields, sizes


def show_layers(network: Network) -> None:
    """Prints every layer with its shape and the receptive field of its central place."""
    shapes, fields = layer_shapes(network), sizes(receptive_fields(network))
    side = network.image_shape[:2]
    title = f"layers, for images of {side[0]} x {side[1]} pixels; fields end at the borders"
    first = Column("--layer", no_wrap=True)
    table = Table(first, "shape", "units", "receptive field", title=title, box=None)
    for name, shape in shapes.items():
        field = " x ".join(map(str, fields[name])) if name in fields else ""
        table.add_row(name, " x ".join(map(str, shape[1:])), f"{shape[-1]}", field)
    console().print(table)
