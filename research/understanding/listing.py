"""Lists what can be asked about: the methods, and a network's layers."""

from collections.abc import Callable

from rich.console import Group
from rich.table import Column, Table

from research.record.report import Report
from research.understanding.methods import METHODS
from research.understanding.network import ImageNetwork, layer_shapes
from research.understanding.receptive_fields import receptive_fields, sizes

TITLES = {
    "optimise": "optimise an image",
    "look": "look at an image",
    "survey": "survey a network or a data set",
}


def methods(opened: Callable[[], ImageNetwork]) -> Report:
    """Lists every method of each kind with its paper; `opened` is not called."""
    rows = [
        {"method": name, **{k: getattr(method, k) for k in ("kind", "summary", "paper")}}
        for name, method in METHODS.items()
        if method.kind in TITLES
    ]
    tables: list[Table | str] = []
    for kind, title in TITLES.items():
        table = Table(Column(title, no_wrap=True), "", Column(style="dim"), box=None)
        for row in rows:
            if row["kind"] == kind:
                table.add_row(f"--method={row['method']}", row["summary"], row["paper"])
        tables += [table, ""]
    return Report(rows, Group(*tables))


def layers(opened: Callable[[], ImageNetwork]) -> Report:
    """Lists every layer with its shape and the receptive field of its central place."""
    network = opened()
    shapes, fields = layer_shapes(network), sizes(receptive_fields(network))
    side = network.image_shape[:2]
    title = f"layers, for images of {side[0]} x {side[1]} pixels; fields end at the borders"
    first = Column("--layer", no_wrap=True)
    table = Table(first, "shape", "units", "receptive field", title=title, box=None)
    rows = []
    for name, shape in shapes.items():
        field = " x ".join(map(str, fields[name])) if name in fields else ""
        rows.append({"layer": name, "shape": list(shape[1:]), "receptive_field": field})
        table.add_row(name, " x ".join(map(str, shape[1:])), f"{shape[-1]}", field)
    return Report(rows, table)
