"""Ray is imported where it is used, started or joined, and left as it was found."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest


class FakeRay:
    """As much of Ray as a connection uses; it records what it is asked."""

    def __init__(self, running=False, refuses=()):
        self.running = running
        self.refuses = refuses
        self.asked = []
        self.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")

    def is_initialized(self):
        return self.running

    def init(self, **settings):
        self.asked.append(settings["address"])
        if settings["address"] in self.refuses:
            raise ConnectionError("nobody there")
        self.running = True

    def shutdown(self):
        self.running = False


@pytest.fixture
def connect(product, monkeypatch):
    """Connect to a Ray, and return the connection."""
    module = product("comfyui.parallel.cluster.connection")
    for name in ("RAY_AUTH_MODE", *module.SILENT):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)

    def connected(ray, address):
        monkeypatch.setattr(module, "import_ray", lambda: ray)
        return module.Connection(address, 3)

    return connected


@pytest.mark.parametrize(
    ("address", "refuses", "asked", "started"),
    [
        ("local", (), ["local"], True),
        ("auto", (), ["auto"], False),
        ("auto", ("auto",), ["auto", "local"], True),
        ("10.0.0.1:6379", (), ["10.0.0.1:6379"], False),
    ],
)
def test_ray_is_joined_or_started(connect, address, refuses, asked, started):
    ray = FakeRay(refuses=refuses)
    connection = connect(ray, address)
    assert ray.asked == asked
    assert connection.started == started
    connection.close()
    assert not ray.running


def test_a_ray_that_another_node_has_connected_to_is_used_and_left_alone(connect):
    ray = FakeRay(running=True)
    connect(ray, "local").close()
    assert ray.asked == []
    assert ray.running


def test_an_address_where_nobody_is_is_named(connect):
    with pytest.raises(ValueError, match=r"got '10\.0\.0\.9:1': nobody there\. Start it by"):
        connect(FakeRay(refuses=("10.0.0.9:1",)), "10.0.0.9:1")


def test_nothing_is_reported_to_others(connect):
    connect(FakeRay(), "local")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_the_command_that_installs_it_is_named(product, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs Ray on every machine.* -m pip install 'ray>=2"):
        product("comfyui.parallel.cluster.connection").import_ray()


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_refused_with_a_way_out(platform, product, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ValueError, match=f"must run on Linux, got {platform}.*CLEAR Parallel"):
        product("comfyui.parallel.cluster.connection").import_ray()


@pytest.mark.parametrize("there", [True, False])
def test_a_secret_is_used_where_there_is_one(there, product, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    if there:
        (tmp_path / "token").write_text("secret")
    product("comfyui.parallel.cluster.connection").import_ray()
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if there else None)
