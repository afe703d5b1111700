"""The size of the model that a checkpoint is for, from the shapes of a whole, consistent one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..families.names import (
    ALPHA,
    BIAS_CHANGE,
    DOWN,
    PARAMETERS,
    UP,
    ModelSize,
    NameTable,
    Place,
)
from ..families.projections import BlockKind, Role, Widths
from .errors import CheckpointError, quoted, some

Shape = tuple[int, ...]


def measure(table: NameTable, shapes: Mapping[str, Shape], source: str) -> ModelSize:
    """Check that a checkpoint is whole and consistent, and return the size of its model.

    Args:
        table: The names of the model family that it is for.
        shapes: Shape of every tensor in the checkpoint.
        source: What to call the checkpoint in an error.

    Raises:
        CheckpointError: There are tensors too many, too few, or of another shape.
    """
    places = _places(table, shapes, source)
    widths = {kind.name: _own_widths(kind, places, shapes) for kind in table.kinds}
    hidden = _hidden(places, shapes) or widths[table.kinds[0].name].hidden
    size = ModelSize(
        hidden=hidden,
        blocks={kind.name: _blocks(kind, places.values()) for kind in table.kinds},
        pool_factor=_pool_factor(places, shapes),
        rank=_rank(places, shapes, source),
        own_widths={
            kind.name: widths[kind.name]
            for kind in table.kinds
            if kind.own_widths and widths[kind.name] != Widths.square(hidden)
        },
    )
    missing = [name for name in table.names(size) if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{source} is incomplete: {len(missing)} tensor(s) are missing, {some(missing)}."
        )
    for name, place in places.items():
        wanted = _wanted_shape(place, size)
        if _without_more_rows(place, shapes[name], wanted) != wanted:
            raise CheckpointError(
                f"{source}: {quoted(name)} must have the shape {list(wanted)}, "
                f"got {list(shapes[name])}."
            )
    _check_depth(table, size, source)
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


def _blocks(kind: BlockKind, places: Iterable[Place]) -> int:
    """Count up to the last block that there is; one is wanted at least, unless all may lack."""
    fewest = 0 if kind.optional else 1
    return max((1 + place.index for place in places if place.kind is kind), default=fewest)


def _check_depth(table: NameTable, size: ModelSize, source: str) -> None:
    kind = table.kinds[0].name
    if table.width_per_block and size.hidden != table.width_per_block * size.blocks[kind]:
        raise CheckpointError(
            f"{source} is incomplete: {table.title} must be {table.width_per_block} wide for each "
            f"{kind} block, got width {size.hidden} and {size.blocks[kind]} blocks; if it is made "
            "for FLUX.1, its single_transformer_blocks are missing."
        )


def _hidden(places: Mapping[str, Place], shapes: Mapping[str, Shape]) -> int:
    """Return the rows of the first weight, against which all shapes are checked afterwards.

    Kinds that may have widths of their own do not count; 0 if there are no others.
    """
    square = {name: place for name, place in places.items() if not place.kind.own_widths}
    return _first_size(square, shapes, ("weight", UP), 0) if square else 0


def _own_widths(
    kind: BlockKind, places: Mapping[str, Place], shapes: Mapping[str, Shape]
) -> Widths:
    """Return the widths of a kind's first queries and keys."""
    own = {name: place for name, place in places.items() if place.kind is kind}
    queries, keys = _of_role(own, "to_q"), _of_role(own, "to_k")
    return Widths(
        hidden=_first_size(queries, shapes, ("weight", DOWN), 1),
        query=_first_size(queries, shapes, ("weight", UP), 0),
        key=_first_size(keys, shapes, ("weight", UP), 0),
    )


def _of_role(places: Mapping[str, Place], role: Role) -> dict[str, Place]:
    return {
        name: place for name, place in places.items() if place.layer and place.layer.role == role
    }


def _rank(places: Mapping[str, Place], shapes: Mapping[str, Shape], source: str) -> int:
    """Return the rank of the first low-rank change, 0 if all layers are whole."""
    layers = {name: place.parameter for name, place in places.items() if place.layer}
    whole = [name for name, parameter in layers.items() if parameter in PARAMETERS]
    changes = [name for name, parameter in layers.items() if parameter not in PARAMETERS]
    if whole and changes:
        raise CheckpointError(
            f"{source} mixes whole weights ({some(whole, 1)}) "
            f"and low-rank changes ({some(changes, 1)}): a checkpoint must have one or the other."
        )
    return _first_size(places, shapes, (DOWN,), 0) if changes else 0


def _first_size(
    places: Mapping[str, Place],
    shapes: Mapping[str, Shape],
    parameters: Collection[str],
    dimension: int,
) -> int:
    sizes = (
        shapes[name][dimension]
        for name, place in places.items()
        if place.parameter in parameters and len(shapes[name]) > dimension
    )
    return max(1, next(sizes, 1))


def _pool_factor(places: Mapping[str, Place], shapes: Mapping[str, Shape]) -> int:
    """Return the factor of the first pooling weights; the others are checked against it."""
    pooling = next((shapes[name] for name, place in places.items() if place.layer is None), None)
    if pooling is None:
        return 0
    return max(2, pooling[3]) if len(pooling) == 7 else 2


def _without_more_rows(place: Place, shape: Shape, wanted: Shape) -> Shape:
    """Return a shape; of a bias without what a fused layer may have behind the trained rows."""
    more = place.parameter == BIAS_CHANGE and len(shape) == 1 and shape > wanted
    return wanted if more else tuple(shape)


def _wanted_shape(place: Place, size: ModelSize) -> Shape:
    if place.layer is None:
        return (1, 1, 1, size.pool_factor, 1, size.pool_factor, 1)
    widths = size.widths(place.kind)
    rows, columns = place.layer.shape(widths)
    return {
        "weight": (rows, columns),
        "bias": (rows,),
        DOWN: (size.rank, columns),
        UP: (rows, size.rank),
        ALPHA: (),
        BIAS_CHANGE: (place.kind.rows(place.layer.host, widths),),
    }[place.parameter]
