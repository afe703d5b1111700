"""What a checkpoint was distilled for, as far as its metadata or its name says it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..families.block_text import parse_radii, require_blocks
from ..families.names import Block
from .errors import CheckpointError, quoted

Radii = Mapping[Block, int]
RADIUS, RADII, POOL_FACTOR = "clear.radius", "clear.radii", "clear.pool_factor"
FAMILY, BASE = "clear.family", "clear.base"
RANK = "clear.rank"

# As in clear_local_16_down_4.safetensors, with whatever people put before and after.
PUBLISHED_NAME = re.compile(
    r"clear[-_. ]?local[-_. ](?P<radius>\d{1,4})(?!\d)"
    r"(?:[-_. ]down[-_. ](?P<factor>\d{1,3})(?!\d))?",
    re.IGNORECASE,
)
NO_POOLING = ("", "1", "none")


def find_radius(given: int | None, metadata: Mapping[str, str], name: str) -> int:
    """Return the radius in tokens: the given one, else the metadata's, else the file name's.

    Raises:
        CheckpointError: Nobody says a radius, or it is no positive integer.
    """
    if given is not None:
        return check_radius(given, name)
    if RADIUS in metadata:
        text = metadata[RADIUS].strip()
        count = _count(text)
        return check_radius(text if count is None else count, name)
    published = PUBLISHED_NAME.search(name)
    if published:
        return check_radius(int(published["radius"]), name)
    raise CheckpointError(
        f"{name} does not say which radius it was distilled for: set the radius input, "
        "or give the file back its published name, such as clear_local_16.safetensors."
    )


def find_radii(metadata: Mapping[str, str], counts: Mapping[str, int], name: str) -> Radii:
    """Return the radii of the blocks that have one of their own, as the metadata says them.

    Args:
        metadata: The file's metadata.
        counts: Number of blocks of each kind of the model that the file is for.
        name: The file's name.

    Raises:
        CheckpointError: The metadata has radii that cannot be read, or of other blocks.
    """
    try:
        radii = parse_radii(metadata.get(RADII, ""), "its radii")
        require_blocks(radii, counts, "its radii")
    except ValueError as error:
        raise CheckpointError(
            f"{name} cannot be used with the radius per block in its metadata ({RADII}): {error} "
            "Set the radius input for one radius of all blocks."
        ) from error
    return radii


def check_radius(radius: object, name: str) -> int:
    """Return a radius that is a positive integer.

    Raises:
        CheckpointError: It is not.
    """
    if isinstance(radius, int) and not isinstance(radius, bool) and radius > 0:
        return radius
    raise CheckpointError(
        f"{name}: the radius must be a positive whole number of tokens, "
        f"got {quoted(radius) if isinstance(radius, str) else radius!r}."
    )


def check_pool_factor(found: int, metadata: Mapping[str, str], name: str) -> None:
    """Check that the metadata, or else the published name, agrees with the pooling weights.

    Args:
        found: The factor that the pooling weights' shape shows; 0 if there are none.
        metadata: The file's metadata.
        name: The file's name.

    Raises:
        CheckpointError: They contradict each other.
    """
    published = PUBLISHED_NAME.search(name)
    if POOL_FACTOR in metadata:
        where, claim = "metadata", metadata[POOL_FACTOR].strip().lower()
    elif published and published["factor"]:
        where, claim = "name", published["factor"]
    else:
        return  # silence contradicts nothing: a name may have been shortened
    if (0 if claim in NO_POOLING else _count(claim)) != found:
        raise CheckpointError(
            f"{name}: its {where} says pooling factor {quoted(claim)}, "
            f"its pooling weights say {found or 'none'}; the file was mixed up or stripped."
        )


def check_rank(found: int, metadata: Mapping[str, str], name: str) -> None:
    """Check that the metadata agrees with the tensors' shapes, where it says a rank.

    Args:
        found: The rank that the shapes show; 0 for whole weights.
        metadata: The file's metadata.
        name: The file's name.

    Raises:
        CheckpointError: They contradict each other.
    """
    if RANK in metadata and _count(metadata[RANK].strip()) != found:
        raise CheckpointError(
            f"{name}: its metadata says rank {quoted(metadata[RANK])}, "
            f"its tensors say {found or 'none'}; the file was mixed up or stripped."
        )


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None
