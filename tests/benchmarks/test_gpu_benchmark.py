"""The GPU benchmark in tiny sizes on any machine: who is timed, who is marked, how it ends."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks import results_file
from benchmarks.gpu import attention, attention_table, contestants, original, run, step_table
from benchmarks.gpu.contestants import Contestant, ours
from benchmarks.gpu.exact import Case, Sees, exact_rows, visible_rows, worst_error
from benchmarks.gpu.measure import NOT_RUN, NOT_THERE, Budget
from benchmarks.gpu.step import SMALL, Result, why_not
from benchmarks.gpu.variant import FULL, Variant
from clear_attention import Window
from clear_attention import attention as clear

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
TINY = dataclasses.replace(
    attention.SMALL, grids=(12,), radii=(4,), texts=(32,), dtype=torch.float32, turns=1
)
MEASURED = re.compile(r"[\d.e+-]+ / [\d.e+-]+ / \d\.\de-\d\d")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def too_wide() -> Contestant:
    """A contestant whose window is one token too wide."""

    def prepare(case, q, k, v):
        return lambda: clear(q, k, v, case.layout, Window(case.radius + 1))

    return Contestant("too wide", Sees.CLEAR, lambda case, q: None, prepare)


def failing(error: Exception) -> Contestant:
    def prepare(case, q, k, v):
        raise error

    return Contestant("failing", Sees.CLEAR, lambda case, q: None, prepare)


def options(**changes) -> argparse.Namespace:
    return argparse.Namespace(**{"small": True, "only": None, "minutes": 5.0, **changes})


def rows(table: str) -> list[dict[str, str]]:
    """Read the rows of all Markdown tables."""
    found, head = [], []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| "):
            continue
        if cells[0] in ("grid", "pixels"):
            head = cells
        else:
            found.append(dict(zip(head, cells, strict=True)))
    return found


@pytest.fixture
def small(benchmarked: dict[str, Any]) -> str:
    """What the command prints in tiny sizes, both halves."""
    return benchmarked["halves"]["printed"]


def test_the_small_run_succeeds_and_says_that_it_is_one(benchmarked, small):
    assert benchmarked["halves"]["code"] == 0, benchmarked["errors"]
    assert small.count("Tiny sizes: these times say nothing about any machine.") == 2


@pytest.mark.parametrize("small", [True, False])
def test_only_a_real_run_is_written_down(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    run.publish("gpu-attention", "the table", small)
    assert "the table" in capsys.readouterr().out
    written = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert len(written) == (0 if small else 1)
    for text in written:
        assert all(word in text for word in ("Date: ", "torch ", "triton ", "CUDA ", "the table"))


def test_everyone_who_runs_on_a_cpu_has_a_time_and_an_error(small):
    table = [row for row in rows(small) if "grid" in row]
    assert len(table) == 2 * 2  # texts, pooling
    for row in table:
        for name in ("triton", "flex", "tiled", "full, torch SDPA"):
            assert MEASURED.fullmatch(row[name]), row
    originals = [row["original FlexAttention"] for row in table]
    assert sum(bool(MEASURED.fullmatch(cell)) for cell in originals) == len(table) // 2
    assert {cell for cell in originals if not MEASURED.fullmatch(cell)} == {
        "not there: written for 512 text tokens"
    }


def test_who_does_not_run_on_a_cpu_is_named_with_its_reason(small):
    for name in ("triton_int8", "NATTEN", "comfy-kitchen"):
        assert re.search(rf"^- {name}.*: not there: ", small, re.MULTILINE), name


def test_the_step_compares_clear_with_full_attention_in_one_run(small):
    table = [row for row in rows(small) if "pixels" in row]
    auto = [row for row in table if row["backend"].startswith("auto: ")]
    assert len(auto) == 2  # sizes
    assert all(float(row["s/step"]) > 0 and float(row["times faster"]) > 0 for row in auto)
    checked = [row["error"] for row in table if row["pixels"].startswith("64 ")]
    assert sum(error != "-" for error in checked) == 3  # two backends, and full
    assert any(row["attention"] == "full" and float(row["s/step"]) > 0 for row in table)
    named = [row["s/step"] for row in table if row["backend"] == "triton"]
    assert named and all(float(cell) > 0 for cell in named)


def test_a_wrong_contestant_is_marked_untimed_and_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(attention, "SMALL", TINY)
    monkeypatch.setattr(contestants, "CONTESTANTS", (ours("tiled"), too_wide()))
    assert run.run(options(only="attention"), None) == 1
    captured = capsys.readouterr()
    for row in rows(captured.out):
        assert row["too wide"].startswith("**WRONG**")
        assert MEASURED.fullmatch(row["tiled"])
    assert "WRONG: too wide" in captured.err


@pytest.mark.parametrize(
    ("error", "cell"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), "out of memory"),
        (RuntimeError("no kernel | here\nand more"), "RuntimeError: no kernel / here"),
    ],
)
def test_a_contestant_that_fails_leaves_the_others_alone(error, cell):
    contestants = [failing(error), ours("tiled")]
    results = attention.measure(CPU, TINY, Budget(1), contestants)
    for row in rows(attention_table.markdown(results, TINY, CPU)):
        assert row["failing"] == cell
        assert MEASURED.fullmatch(row["tiled"])
    assert not attention_table.mistakes(results)


def test_nothing_is_started_when_the_time_is_over():
    results = attention.measure(CPU, TINY, Budget(0), [ours("tiled"), ours("flex")])
    assert {result.reason for result in results} == {NOT_RUN}
    assert "not run (time)" in attention_table.markdown(results, TINY, CPU)


def test_without_a_gpu_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.run(options(small=False), None) == 2
    assert "needs a GPU" in (said := capsys.readouterr().out) and "--small" in said


@pytest.mark.parametrize("factor", [0, 4])
def test_the_exact_rows_are_those_of_the_reference(factor):
    case = Case(13, 7, radius=4, factor=factor)
    generator = torch.Generator().manual_seed(0)
    shape = (1, 2, case.layout.tokens, 16)
    q, k, v = (torch.randn(shape, generator=generator).double() for _ in range(3))
    queries = torch.randperm(case.layout.tokens, generator=generator)[:40]
    exact = exact_rows(q, k, v, case, Sees.CLEAR, queries)
    reference = clear(q, k, v, case.layout, case.window, pooling=case.pooling, backend="reference")
    assert worst_error(reference[0, :, queries], exact) < 1e-12


@pytest.mark.parametrize("sees", Sees)
@pytest.mark.parametrize("case", [Case(13, 7, 4), Case(12, 0, 4, 4), Case(7, 3, 9, 3)], ids=str)
def test_the_counted_pairs_are_those_that_are_seen(case, sees):
    image = torch.arange(case.layout.tokens)[case.text if sees is Sees.SQUARE else 0 :]
    assert case.pairs(sees) == visible_rows(case, sees, image).sum()


def test_one_wrong_query_among_many_counts():
    exact = torch.ones(2, 100, 8).double()
    rows = exact.clone()
    rows[1, 57] = 1.5
    assert worst_error(rows, exact) > 0.3
    rows[1, 57] = torch.nan
    assert worst_error(rows, exact) == float("inf")


@pytest.mark.parametrize("case", [Case(16, 128, 4), Case(20, 77, 5), Case(24, 512, 8, 4)], ids=str)
def test_the_block_lists_of_the_original_are_torchs_own(case, monkeypatch):
    monkeypatch.setattr(original, "BAND_ELEMENTS", 128 * 128 * 20)  # several bands
    mask = original.block_mask(case, CPU)
    queries, keys = mask.seq_lengths
    torchs = create_block_mask(original.sees(case), None, None, queries, keys, device="cpu")
    for ours_, theirs in (
        ((mask.kv_num_blocks, mask.kv_indices), (torchs.kv_num_blocks, torchs.kv_indices)),
        (
            (mask.full_kv_num_blocks, mask.full_kv_indices),
            (torchs.full_kv_num_blocks, torchs.full_kv_indices),
        ),
    ):
        assert torch.equal(ours_[0], theirs[0])
        for row in range(mask.kv_num_blocks.shape[2]):
            count = int(ours_[0][0, 0, row])
            listed = [set(lists[1][0, 0, row, :count].tolist()) for lists in (ours_, theirs)]
            assert listed[0] == listed[1]


def test_a_step_is_judged_by_its_goal_and_by_full_attention_of_the_same_size():
    results = [
        Result(4096, Variant(16), seconds=2.0, ran="triton"),
        Result(4096, Variant(8), seconds=2.0, ran="triton", wrong=True, error=0.5),
        Result(4096, FULL, seconds=7.0, ran="attention_pytorch"),
        Result(8192, FULL, seconds=99.0),
    ]
    table = rows(step_table.markdown(results, SMALL, "0.0"))
    assert table[0]["times faster"] == "3.50, reached" and table[0]["goal"] == "3"
    assert table[1]["s/step"] == "**WRONG**"
    assert step_table.mistakes(results) == ["CLEAR, r = 8 at 4096 px: 5.0e-01"]


def test_a_step_that_would_end_too_late_or_twice_is_not_run():
    results = [
        Result(1024, FULL, seconds=10.0, ran="attention_pytorch"),
        Result(1024, Variant(8, "triton"), reason=f"{NOT_THERE}: no such GPU"),
        Result(2048, Variant(16), seconds=1.0, ran="triton"),
    ]
    hour, minute = Budget(60), Budget(1)
    assert why_not(results, 2048, FULL, hour) == ""
    assert why_not(results, 2048, FULL, minute) == NOT_RUN  # about 12 x 10 s
    assert why_not(results, 2048, Variant(8, "triton"), hour) == f"{NOT_THERE}: no such GPU"
    assert why_not(results, 2048, Variant(16, "triton"), hour) == "what auto took"
    assert why_not(results, 2048, Variant(16, "nobody"), hour) == f"{NOT_THERE}: no such backend"
