"""Fixtures: prompts that the host's own executor runs here, and a cluster of this machine."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[4]
PACK = Path(__file__).parent / "pack"


@pytest.fixture(scope="module")
def cluster_nodes(host, node_classes):
    """The test pack's module, its nodes and ours known to the host of this process."""
    import nodes

    spec = importlib.util.spec_from_file_location("clear_test_nodes", PACK / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    nodes.NODE_CLASS_MAPPINGS.update(module.NODE_CLASS_MAPPINGS)
    nodes.NODE_CLASS_MAPPINGS.update(node_classes)
    yield module
    nodes.NODE_CLASS_MAPPINGS.clear()
    nodes.NODE_CLASS_MAPPINGS.update(before)


@pytest.fixture(scope="module")
def base_directory(tmp_path_factory, host):
    """A base directory whose node packs are ours and the test's; workers get it too."""
    from comfy.cli_args import args

    from tools.folders import furnish

    base = tmp_path_factory.mktemp("base")
    furnish(base, {"clear-attention": ROOT, "cluster_nodes": PACK})
    before, args.base_directory = args.base_directory, str(base)
    yield base
    args.base_directory = before


@pytest.fixture(scope="module")
def execute(cluster_nodes):
    """Run a prompt by the host's executor, and return the latent that it keeps."""
    import execution

    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=None))
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "server", fake)

    server = SimpleNamespace(
        client_id=None,
        last_node_id=None,
        last_prompt_id=None,
        sockets_metadata={},
        send_sync=lambda *_, **__: None,
    )
    sizes = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(
        server, cache_type=execution.CacheType.CLASSIC, cache_args=sizes
    )
    numbers = itertools.count()

    def run(prompt):
        cluster_nodes.Keep.kept = None
        executor.execute(prompt, f"test {next(numbers)}", {}, ["keep"])
        for event, data in executor.status_messages:
            if event == "execution_error":
                raise RuntimeError(data["exception_message"])
            if event == "execution_interrupted":
                raise InterruptedError
        return cluster_nodes.Keep.kept

    yield run
    patch.undo()


@pytest.fixture(scope="module")
def cluster(product, base_directory):
    """The session of this process; no process of it is left behind."""
    import psutil

    os.environ.setdefault("RAY_AUTH_TOKEN", "a" * 32)
    session = product("comfyui.parallel.cluster.session")
    yield session.CURRENT
    session.CURRENT.close()
    left = [one.name() for one in psutil.Process().children(recursive=True)]
    assert not [name for name in left if "ray" in name or "gcs" in name], left
