"""What machines compare before a worker loads a model."""

from __future__ import annotations

import pytest

from .prompts import WINDOW, prompt


@pytest.fixture
def loras(host, monkeypatch, tmp_path):
    """A folder of LoRAs with one file in it, larger than what is compared of it."""
    import folder_paths

    folders = {**folder_paths.folder_names_and_paths, "loras": ([str(tmp_path)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    path = tmp_path / "dots.safetensors"
    path.write_bytes(bytes(2**20 + 100))
    return path


@pytest.fixture
def listed(product, cluster_nodes):
    """The inventory of a prompt that names a LoRA."""
    inventory = product("comfyui.parallel.cluster.inventory").inventory
    nodes = prompt(("Shifted", {"strength": 1.0, "lora": "dots.safetensors"}), WINDOW)
    return lambda: inventory(nodes)


FILE = "the file loras/dots.safetensors"


def test_versions_nodes_and_files_are_listed(listed, loras):
    found = listed()
    assert {"ComfyUI", "CLEAR Attention", "Python", "torch", FILE} <= set(found)
    assert {f"the node {name}" for name in ("Shifted", "CLEARAttention", "CLEARCluster")} <= set(
        found
    )
    assert found[FILE].startswith("of 1048676 bytes (")


@pytest.mark.parametrize("place", [0, 2**20 - 1])
def test_another_beginning_of_a_file_is_seen(listed, loras, place):
    before = listed()
    content = bytearray(loras.read_bytes())
    content[place] = 1
    loras.write_bytes(content)
    assert listed()[FILE] != before[FILE]


def test_another_size_of_a_file_is_seen(listed, loras):
    before = listed()
    loras.write_bytes(bytes(2**20 + 101))
    assert listed()[FILE] != before[FILE]


def test_a_missing_file_is_no_error_but_a_difference(listed, loras, product):
    here = listed()
    loras.unlink()
    there = listed()
    said = product("comfyui.parallel.cluster.inventory").differences("B", here, there)
    assert said == f"B differs from this machine: {FILE} missing (here {here[FILE]})"


def test_what_another_machine_has_besides_does_not_matter(product):
    differences = product("comfyui.parallel.cluster.inventory").differences
    assert differences("B", {"torch": "2"}, {"torch": "2", "more": "1"}) == ""


def test_many_differences_are_counted(product):
    differences = product("comfyui.parallel.cluster.inventory").differences
    here = {f"the node {number}": "a" for number in range(7)}
    assert differences("B", here, {}).endswith("the node 4 missing (here a), and 2 more")


def test_text_of_a_prompt_names_no_file(product, host, cluster_nodes):
    inventory = product("comfyui.parallel.cluster.inventory").inventory
    texts = ("a " * 3000, "../../etc/passwd", "", "\0", "a\nb", "C:\\x", "~")
    nodes = {str(i): {"class_type": "X", "inputs": {"a": text}} for i, text in enumerate(texts)}
    assert not [name for name in inventory(nodes) if name.startswith("the file")]
