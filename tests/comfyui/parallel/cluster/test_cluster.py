"""One picture on several processes that Ray has placed: the picture of one."""

from __future__ import annotations

import os
import threading
import time

import psutil
import pytest
import torch

from ...controlnet_fixtures import hint_for
from .prompts import WINDOW, prompt, relative

LIMIT = 1e-6

pytestmark = pytest.mark.long

RUNS = {
    "one window": dict(between=[WINDOW]),
    "an odd latent, sharper and seamless": dict(
        between=[
            ("CLEARAttention", {"radius": 4, "pool_factor": 2}),
            ("CLEARSeamless", {"direction": "horizontal"}),
            ("CLEARHighRes", {"ntk_factor": 2.0}),
        ],
        size=(27, 35),
    ),
    "a patched weight": dict(between=[("Shifted", {"strength": 0.7}), WINDOW]),
    "no window": dict(between=[]),
    "another model": dict(between=[WINDOW], name="a"),
    "two pictures": dict(between=[WINDOW], batch=2),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_cluster_paints_the_picture_of_one_device(run, execute, cluster, lines):
    expected = execute(prompt(**RUNS[run], cluster=None))
    actual = execute(prompt(**RUNS[run]))
    assert relative(actual, expected) < LIMIT
    (told,) = [line for line in lines() if line.startswith("cluster")]
    assert "cluster: each of" in told
    assert told.count("the worker on") == 2


@pytest.mark.parametrize("net", ["instantx", "union"])
def test_a_controlnet_s_residuals_travel_to_those_who_need_them(
    net, execute, cluster, cluster_nodes, make_control_net
):
    cluster_nodes.Controlled.net = make_control_net(net)
    cluster_nodes.Controlled.hint = hint_for(net, (26, 20))
    plain = execute(prompt(WINDOW, cluster=None))
    expected = execute(prompt(WINDOW, cluster=None, controlled=net))
    assert relative(plain, expected) > 0.01
    assert relative(execute(prompt(WINDOW, controlled=net)), expected) < LIMIT


def test_a_repeated_run_is_bit_equal(execute, cluster):
    first = execute(prompt(WINDOW))
    again = execute(prompt(WINDOW, seed=5))
    repeated = execute(prompt(WINDOW))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, again)


def test_a_worker_loads_a_model_once_for_all_prompts_that_have_it(execute, cluster, tmp_path):
    log = tmp_path / "loads"
    for strength in (0.5, 0.5, 1.0):
        execute(prompt(("Shifted", {"strength": strength}), WINDOW, log=str(log)))
    assert sorted(log.read_text().split()) == sorted(map(str, processes(cluster)))


def processes(cluster):
    """Return the processes of all ranks."""
    return [os.getpid(), *(one.about["process"] for one in cluster.session.members)]


@pytest.mark.parametrize("behind", [("Shifted", {"strength": 1.0}), WINDOW])
def test_a_node_behind_ours_is_refused(behind, execute, cluster_nodes):
    with pytest.raises(RuntimeError, match="must be the last node in front of the sampler"):
        execute(prompt(("CLEARCluster", {"address": "local", "gpus": 2}), behind, cluster=None))


def test_prompts_with_hooks_are_refused(execute, cluster_nodes):
    with pytest.raises(RuntimeError, match="must get prompts without hooks"):
        execute(prompt(WINDOW, hooked=True))


@pytest.mark.parametrize("other", [("CLEARParallel", {"devices": "cpu,cpu", "shares": "auto"})])
def test_two_nodes_that_share_a_model_are_refused(other, execute, cluster_nodes):
    with pytest.raises(RuntimeError, match="must be the only node that shares a model"):
        execute(prompt(WINDOW, other))


def test_workers_that_differ_are_refused_with_the_difference(
    execute, cluster, product, monkeypatch
):
    session = product("comfyui.parallel.cluster.session")
    original = session.inventory

    def changed(nodes):
        return {**original(nodes), "torch": "1.0", "the file loras/dots.safetensors": "of 3 bytes"}

    monkeypatch.setattr(session, "inventory", changed)
    with pytest.raises(RuntimeError, match=r"the worker on .* differs from this machine") as error:
        execute(prompt(WINDOW))
    assert f"torch {torch.__version__.partition('+')[0]} (here 1.0)" in str(error.value)
    assert "the file loras/dots.safetensors missing (here of 3 bytes)" in str(error.value)


@pytest.fixture
def troubled(execute, cluster, tmp_path):
    """Run a prompt in whose steps a process does what the file says; then once more without."""

    def run(what, rank):
        flag = tmp_path / "flag"
        nodes = prompt(("Trouble", {"flag": str(flag)}), WINDOW)
        expected = execute(prompt(WINDOW, cluster=None))
        assert relative(execute(nodes), expected) < LIMIT
        process = "any" if rank is None else processes(cluster)[rank]
        flag.write_text(f"{what} {process}")
        try:
            with pytest.raises((RuntimeError, InterruptedError)) as error:
                execute(prompt(("Trouble", {"flag": str(flag)}), WINDOW, seed=5))
            ended = time.time()
        finally:
            flag.unlink()
        assert relative(execute(nodes_again(flag)), expected) < LIMIT
        return error.value, ended

    def nodes_again(flag):
        return prompt(("Trouble", {"flag": str(flag)}), WINDOW, steps=2)

    return run


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_error_of_any_rank_is_the_run_s_and_the_next_run_is_right(rank, troubled, cluster):
    before = cluster.session
    error, _ = troubled("fail", rank)
    assert "the block is out of order" in str(error)
    assert ("the worker on" in str(error)) == (rank > 0)
    assert cluster.session is before


def test_a_worker_without_memory_says_how_much_it_had_to_do(troubled):
    error, _ = troubled("memory", 2)
    assert "the worker on" in str(error)
    assert "of 13 rows of tokens. Use more GPUs, or add CLEAR Low Memory." in str(error)


def test_an_interrupt_stops_all_ranks_and_the_next_run_is_right(troubled, cluster, tmp_path):
    import nodes

    def interrupt():
        while not (tmp_path / "flag").exists():
            time.sleep(0.02)
        time.sleep(0.5)
        nodes.interrupt_processing()
        seen.append(time.time())

    seen = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    before = cluster.session
    error, ended = troubled("sleep", None)
    thread.join()
    assert isinstance(error, InterruptedError)
    assert 0 <= ended - seen[0] < 5
    assert cluster.session is before


def test_a_killed_worker_is_an_error_within_five_seconds_and_the_next_run_is_right(
    troubled, cluster, tmp_path
):
    before = processes(cluster)
    error, ended = troubled("kill", 1)
    assert "was lost: its process or its machine has ended. Queue the prompt again" in str(error)
    assert ended - float((tmp_path / "flag.at").read_text()) < 5
    assert not [one for one in before[1:] if psutil.pid_exists(one)]
    assert len({*before, *processes(cluster)}) == 5
