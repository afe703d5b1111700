"""Processes that `torch.distributed` connects compute the attention of one, and end together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fork_server import ForkServer

HERE = Path(__file__).parent
SIZE = 3
LIMIT = 1e-6


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank has printed, by what was tried."""
    folder = tmp_path_factory.mktemp("ranks")
    modules = "clear_attention.parallel.process_group", "clear_attention.parallel.group"
    with ForkServer(*modules, path=[HERE.parents[1]]) as server:
        ranks = [
            server.start(
                HERE / "group_rank.py", rank, SIZE, folder / "port", output=folder / str(rank)
            )
            for rank in range(SIZE)
        ]
        failed = [rank.errors for rank in ranks if rank.wait(200) != 0]
    assert not failed, "\n".join(failed)
    outputs = [rank.output for rank in ranks]
    lines = [[json.loads(line) for line in out.splitlines()] for out in outputs]
    return [{name: value for line in each for name, value in line.items()} for each in lines]


def test_processes_compute_the_attention_of_one(found):
    cases = [one["compared"] for one in found]
    distances = {name: max(case[name][0] for case in cases) for name in cases[0]}
    assert len(distances) == 8
    assert max(distances.values()) < LIMIT, distances


def test_text_is_the_same_to_the_bit_in_all_processes(found):
    cases = [one["compared"] for one in found]
    different = [name for name in cases[0] if len({case[name][1] for case in cases}) > 1]
    assert not different


@pytest.mark.parametrize("how", ["is stopped", "aborts", "exits"])
def test_all_processes_fail_soon_where_one(how, found):
    seen = [one[how] for one in found if how in one]
    assert len(seen) == (SIZE - 1 if how == "exits" else SIZE)
    for one in seen:
        assert one["cause"] is not None
        assert one["seconds"] < 5
    if how != "exits":
        assert "out of order" in seen[2]["cause"]
