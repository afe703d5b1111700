"""What people read of a shared run: rows, megabytes and waiting of each rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ONE_IS_AS_FAST = (
    ". One device alone would be about as fast: the devices waited for each other in {share:.0%} "
    "of the time. Larger pictures, a smaller radius or a faster link help; unlike devices need "
    "other shares"
)


@dataclass(frozen=True)
class RankWork:
    """What a rank did in a run.

    Attributes:
        name: Of its device.
        lines: Rows or columns of the last call.
        received: Bytes in all calls.
        waited: Seconds in the calls that were timed.
        busy: Seconds in which it did not wait, likewise.
    """

    name: str
    lines: int
    received: int
    waited: float
    busy: float


def ranks_described(
    ranks: Sequence[RankWork],
    calls: int,
    timed: int,
    *,
    columns: bool = False,
    head: str = "parallel:",
) -> str:
    """Return a line for people about a run, which ends in a sentence where one would be as fast.

    Args:
        ranks: In their order.
        calls: How many model calls they computed, at least one.
        timed: How many of these counted the time that ranks waited, likewise.
        columns: Whether they shared out columns.
        head: How the line begins.
    """
    step = max(rank.waited + rank.busy for rank in ranks) / timed
    total = sum(rank.lines for rank in ranks)
    what = "columns" if columns else "rows"
    each = "; ".join(
        f"{rank.name} computed {rank.lines} of {total} {what} of tokens, received "
        f"{rank.received / calls / 1e6:,.2f} MB and waited {1000 * rank.waited / timed:,.1f} ms"
        for rank in ranks
    )
    line = f"{head} each of {calls} model calls took {step:.3g} s: {each}"
    # One device would compute what all of them did, but for the text that each has.
    if sum(rank.busy for rank in ranks) > step * timed:
        return line
    share = sum(r.waited for r in ranks) / sum(r.waited + r.busy for r in ranks)
    return line + ONE_IS_AS_FAST.format(share=share)
