"""Cut: where a model's tokens may be shared out among devices, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cut:
    """The places at which a rank's model takes its own tokens out of all, and gives them back.

    Between them every layer but the attention computes each token for itself. Dimensions are those
    of the tokens.

    Attributes:
        joined: Path of the module whose output, ``[B, tokens, C]``, is put together; empty where
            the result stays with the ranks.
        method: Name of the method that runs the blocks; empty where modules are enough.
        arguments: Argument of that method that holds the picture's tokens -> dimension.
        outputs: Path of a module, run once in each call, whose output is cut -> dimension.
        first: Argument of the first block of each kind that is cut -> dimension. Between two kinds
            tokens are as many as without a cut: the host counts them there.
        blocks: Argument of all blocks that is cut -> dimension.
        places: Arguments of the method, or of blocks and of what is put together, that are places
            in the sequence: numbers, in lists or not.
    """

    joined: str
    method: str = ""
    arguments: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)
    places: tuple[str, ...] = ()
