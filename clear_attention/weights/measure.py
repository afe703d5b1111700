"""The size of the model that a checkpoint is for, from the shapes of a whole, consistent one."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import CheckpointError, quoted, some
from .table import NameTable, Place, Size

Shape = tuple[int, ...]


def measure(table: NameTable, shapes: Mapping[str, Shape], source: str) -> Size:
    """Check that a checkpoint is whole and consistent, and return the size of its model.

    Args:
        table: The names of the model family that it is for.
        shapes: Shape of every tensor in the checkpoint.
        source: What to call the checkpoint in an error.

    Raises:
        CheckpointError: There are tensors too many, too few, or of another shape.
    """
    places = _places(table, shapes, source)
    size = Size(
        hidden=_hidden(shapes),
        blocks={
            kind.name: 1 + max((p.index for p in places.values() if p.kind is kind), default=0)
            for kind in table.kinds
        },
        pool_factor=_pool_factor(places, shapes),
    )
    missing = [name for name in table.names(size) if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{source} is incomplete: {len(missing)} tensor(s) are missing, {some(missing)}."
        )
    for name, place in places.items():
        wanted = _wanted_shape(place, size)
        if tuple(shapes[name]) != wanted:
            raise CheckpointError(
                f"{source}: {quoted(name)} must have the shape {list(wanted)}, "
                f"got {list(shapes[name])}."
            )
    return size


def _places(table: NameTable, shapes: Mapping[str, Shape], source: str) -> dict[str, Place]:
    found = {name: table.place(name) for name in shapes}
    foreign = [name for name, place in found.items() if place is None]
    if foreign:
        raise CheckpointError(
            f"{source} is not a CLEAR checkpoint for {table.title}: it has {len(foreign)} "
            f"tensor(s) that none has, {some(foreign)}."
        )
    return {name: place for name, place in found.items() if place}


def _hidden(shapes: Mapping[str, Shape]) -> int:
    """Return the width of the first weight; all shapes are checked against it afterwards."""
    widths = (shape[0] for name, shape in shapes.items() if name.endswith(".weight") and shape)
    return max(1, next(widths, 1))


def _pool_factor(places: Mapping[str, Place], shapes: Mapping[str, Shape]) -> int:
    """Return the factor of the first pooling weights; the others are checked against it."""
    pooling = next((shapes[name] for name, place in places.items() if place.layer is None), None)
    if pooling is None:
        return 0
    return max(2, pooling[3]) if len(pooling) == 7 else 2


def _wanted_shape(place: Place, size: Size) -> Shape:
    if place.layer is None:
        return (1, 1, 1, size.pool_factor, 1, size.pool_factor, 1)
    return (size.hidden, size.hidden) if place.parameter == "weight" else (size.hidden,)
