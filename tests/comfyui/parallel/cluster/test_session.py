"""Which workers a session has, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


class FakeRay:
    """A cluster of one machine, whose cards Ray gives away in their order."""

    def __init__(self, cards):
        self.cards = list(cards)
        self.killed = []

    def kill(self, actor):
        self.killed.append(actor.card)


@pytest.fixture
def session(product, monkeypatch):
    """Make a session whose own card is the given one, on a cluster with these cards."""
    module = product("comfyui.parallel.cluster.session")
    members = product("comfyui.parallel.cluster.members")

    def started(connection, count, *, gpu):
        assert gpu
        actors = [
            SimpleNamespace(card=card, open=SimpleNamespace(remote=lambda settings: None))
            for card in [connection.ray.cards.pop(0) for _ in range(count)]
        ]
        return [members.Member(actor) for actor in actors]

    def asked(self, method, *arguments, of=None, **_):
        assert method == "about"
        return [{"card": one.actor.card, "machine": "A", "device": "cuda:0"} for one in of]

    monkeypatch.setattr(module, "start_members", started)
    monkeypatch.setattr(module, "gathered", lambda *_, **__: [])
    monkeypatch.setattr(module.Session, "ask_all", asked)

    def make(own, cards, gpus):
        monkeypatch.setattr(module, "card_of", lambda device: own)
        ray = FakeRay(cards)
        return module.Session(SimpleNamespace(ray=ray, open=True), gpus, torch.device("cuda"))

    return make


@pytest.mark.parametrize(
    ("own", "cards", "gpus", "expected"),
    [
        ("c0", ["c0", "c1", "c2"], 2, ["c1", "c2"]),
        ("c1", ["c0", "c1", "c2"], 2, ["c0", "c2"]),
        ("c0", ["d0", "d1"], 2, ["d0", "d1"]),
    ],
)
def test_the_card_that_comfyui_samples_on_is_no_worker_s(session, own, cards, gpus, expected):
    made = session(own, cards, gpus)
    assert [one.about["card"] for one in made.members] == expected
    assert made.size == gpus + 1


def test_a_closed_session_ends_all_that_it_started(session):
    made = session("c0", ["c0", "c1", "c2"], 2)
    ray = made.connection.ray
    made.close()
    assert sorted(ray.killed) == ["c0", "c1", "c2"]
    assert not made.alive


def test_nothing_is_asked_of_a_ray_that_has_ended(session):
    made = session("c0", ["c1"], 1)
    made.connection.open = False
    made.close()
    assert made.connection.ray.killed == []


def test_too_few_gpus_are_counted(product, monkeypatch):
    members = product("comfyui.parallel.cluster.members")
    monkeypatch.setattr(members, "PLACED_SECONDS", 0.0)
    ray = SimpleNamespace(
        cloudpickle=SimpleNamespace(register_pickle_by_value=lambda module: None),
        available_resources=lambda: {"GPU": 1.0},
    )
    with pytest.raises(ValueError, match=r"got 3, and 1 are free.*clear_attention\.cluster"):
        members.start_members(SimpleNamespace(ray=ray), 3, gpu=True)
