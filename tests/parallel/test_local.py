"""Ranks as threads: an error stops all of them at once, and nothing is left behind."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from attention_cases import Case
from rank_cases import CPU, Shared, run_ranks

from clear_attention import TokenLayout
from clear_attention.parallel.local import Board, LocalTransport, corrupting_pairs
from clear_attention.parallel.partition import Partition
from clear_attention.parallel.transport import Aborted, Expected

# Ranks look for errors twenty times a second; the rest is for a machine that is busy.
SECONDS = 1.0

STEPS = ("extra tokens", "lines", "parts", "join")
SHARED = Shared(
    Case(TokenLayout(3, 9, 4, 6), radius=3, dtype=torch.float64),
    Partition(9, 4, (0, 3, 6, 9), extra=(0, 2, 4, 6)),
)


class FailingPending:
    """An exchange whose tensors never come, as when memory for them runs out."""

    def __init__(self, error):
        self.error = error

    def wait(self):
        raise self.error


class Failing(LocalTransport):
    """A transport that fails in one exchange, before it has sent or while it receives."""

    def __init__(self, board, rank, size, step, moment, error):
        super().__init__(board, rank, size, CPU)
        self.moment, self.error = moment, error
        self.left = step

    def exchange(self, sent, awaited):
        self.left -= 1
        if self.left == -1 and self.moment == "sending":
            raise self.error
        pending = super().exchange(sent, awaited)
        return FailingPending(self.error) if self.left == -1 else pending


def joined(transport):
    """Compute a rank's part, and put all together on rank 0."""
    out = SHARED.attend(transport)
    if transport.rank:
        transport.exchange({0: [out]}, {}).wait()
        return
    others = {rank: SHARED.partition.tokens(rank, SHARED.case.layout) for rank in (1, 2)}
    awaited = {rank: [Expected((1, 2, tokens, 16), out.dtype)] for rank, tokens in others.items()}
    transport.exchange({}, awaited).wait()


def failing_runs(step, failing, moment, error):
    board = Board()
    transports = [
        Failing(board, rank, 3, step if rank == failing else -1, moment, error) for rank in range(3)
    ]
    return board, run_ranks(transports, joined)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("moment", ["sending", "receiving"])
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize("step", range(4), ids=STEPS)
def test_an_error_in_one_rank_stops_all(step, failing, moment, error):
    board, runs = failing_runs(step, failing, moment, error)
    assert board.error is error
    assert runs.errors.pop(failing) is error
    assert runs.seconds < SECONDS
    assert {*runs.errors} | {*runs.results} == {0, 1, 2} - {failing}
    for other in runs.errors.values():
        assert isinstance(other, Aborted)
        assert other.__cause__ is error
    assert board.is_empty


def test_without_an_error_all_finish():
    board, runs = failing_runs(9, 0, "sending", None)
    assert not runs.errors
    assert board.is_empty


def test_the_first_of_two_errors_stays():
    board, first = Board(), ValueError("first")
    board.abort(first)
    board.abort(ValueError("second"))
    assert board.error is first


def test_who_comes_to_an_exchange_after_an_error_leaves_nothing_there():
    board = Board()
    one = LocalTransport(board, 0, 2, CPU)
    board.abort(ValueError("first"))
    with pytest.raises(Aborted):
        one.exchange({1: [torch.zeros(3)]}, {})
    assert board.is_empty


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([torch.zeros(2, 3)], r"rank 1 must send \[.*\(2, 4\).*\], got \[.*\(2, 3\)"),
        ([torch.zeros(2, 4, dtype=torch.float16)], r"rank 1 must send .*float32.*got .*float16"),
        ([], r"rank 1 must send .*, got \[\]"),
    ],
)
def test_a_rank_that_is_out_of_step_is_named(sent, said):
    board = Board()
    one, other = (LocalTransport(board, rank, 2, CPU) for rank in range(2))
    other.exchange({0: sent}, {})
    with pytest.raises(AssertionError, match=said):
        one.exchange({}, {1: [Expected((2, 4), torch.float32)]}).wait()


def test_what_is_sent_first_is_received_first():
    board = Board()
    one, other = (LocalTransport(board, rank, 2, CPU) for rank in range(2))
    for number in range(3):
        other.exchange({0: [torch.full((2,), float(number))]}, {})
    expected = {1: [Expected((2,), torch.float32)]}
    pending = [one.exchange({}, expected) for _ in range(3)]
    received = [each.wait()[1][0].tolist() for each in reversed(pending)]
    assert received == [[2.0] * 2, [1.0] * 2, [0.0] * 2]
    assert one.received == 3 * 8
    assert other.received == 0


class Stopped(BaseException):
    """What the host raises when a user presses its button."""


def test_a_user_can_stop_ranks_that_wait():
    pressed, begun = threading.Event(), threading.Event()

    def poll():
        if pressed.is_set():
            raise Stopped
        begun.set()

    board = Board(poll)
    one = LocalTransport(board, 0, 2, CPU)
    threading.Thread(target=lambda: (begun.wait(), time.sleep(0.1), pressed.set())).start()
    start = time.perf_counter()
    awaited = {1: [Expected((2,), torch.float32)]}
    runs = run_ranks([one], lambda rank: rank.exchange({}, awaited).wait())
    assert time.perf_counter() - start < SECONDS
    assert isinstance(runs.errors[0], Stopped)
    with pytest.raises(Stopped):
        one.exchange({1: [torch.zeros(2)]}, {})
    assert board.is_empty


def test_waiting_is_measured():
    board = Board()
    one, other = (LocalTransport(board, rank, 2, CPU) for rank in range(2))
    threading.Timer(0.2, other.exchange, ({0: [torch.zeros(2)]}, {})).start()
    one.exchange({}, {1: [Expected((2,), torch.float32)]}).wait()
    assert one.waited > 0.1
    assert other.waited == 0


@pytest.mark.parametrize("through_host", [False, True])
def test_devices_that_do_not_reach_each_other_go_through_main_memory(through_host, monkeypatch):
    plain, staged = torch.Tensor.cpu, []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: (staged.append(x), plain(x))[1])
    board = Board()
    devices = frozenset({CPU}) if through_host else frozenset()
    one, other = (LocalTransport(board, rank, 2, CPU, devices) for rank in range(2))
    sent = torch.arange(3.0)
    other.exchange({0: [sent]}, {})
    received = one.exchange({}, {1: [Expected((3,), torch.float32)]}).wait()
    assert torch.equal(received[1][0], sent)
    assert [x is sent for x in staged] == [True] * through_host


def test_on_one_device_nothing_is_copied_wrongly():
    assert corrupting_pairs([CPU]) == set()
    assert corrupting_pairs([CPU, CPU]) == set()
    assert corrupting_pairs([]) == set()


def test_devices_whose_copies_are_garbage_are_found(monkeypatch):
    devices = [CPU, torch.device("cpu:0")]
    plain = torch.Tensor.to

    def to(tensor, target, *args, **kwargs):
        copied = plain(tensor, target, *args, **kwargs)
        if target == devices[1]:
            copied = copied.clone()
            copied[-1] = 0  # most of it has arrived
        return copied

    monkeypatch.setattr(torch.Tensor, "to", to)
    assert corrupting_pairs(devices) == {(devices[0], devices[1])}


def test_a_rank_that_ends_before_the_others_is_named():
    board = Board()
    one, other = (LocalTransport(board, rank, 2, CPU) for rank in range(2))
    one.finish()
    pending = other.exchange({}, {0: [Expected((1,), torch.float32)]})
    with pytest.raises(RuntimeError, match="Rank 0 must send as often as rank 1 waits"):
        pending.wait()


def test_what_was_sent_before_a_rank_ended_arrives():
    board = Board()
    one, other = (LocalTransport(board, rank, 2, CPU, in_step=True) for rank in range(2))
    one.exchange({1: [torch.ones(1)]}, {})
    one.finish()
    received = other.exchange({}, {0: [Expected((1,), torch.float32)]}).wait()
    assert received[0][0] == 1
