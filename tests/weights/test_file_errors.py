"""One clear sentence for every file that is no usable CLEAR checkpoint."""

from __future__ import annotations

import json
import pickle
import time

import pytest
import safetensors
import torch

from clear_attention.weights import CheckpointError, read

WEIGHT = "transformer_blocks.0.attn.to_q.weight"
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

NO_SAFETENSORS = {
    "empty": (b"", "is empty"),
    "three bytes": (b"abc", "is not a .safetensors file"),
    "eight zeros": (bytes(8), "is not a .safetensors file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), "JPEG"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "html after a blank line": (b"\r\n  <html>Access denied</html>", "web page"),
    "json": (b'{"error": "Repository not found"}', "JSON"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3587400000\n",
        "git-lfs pointer",
    ),
    "text": (b"CLEAR weights: see the other folder\n", "is not a .safetensors file but a text"),
    "text with a mark": (b"\xef\xbb\xbfein gr\xc3\xbcner Apfel", "but a text"),
    "long text, cut within a letter": (b"a" + "\u00fc".encode() * 400, "but a text"),
    "UTF-16": ("CLEAR".encode("utf-16"), "but a text"),
    "raw pickle": (pickle.dumps({"a": list(range(9))}, 2), "pickle"),
    "newer pickle": (pickle.dumps({"a": list(range(9))}, 4), "pickle"),
    "noise": (bytes(range(100, 200)), "is not a .safetensors file"),
}


def refuse(path, *words):
    """Assert that a file is refused with one sentence that has its name and these words in it."""
    with pytest.raises(CheckpointError) as caught:
        read(path, radius=8)
    message = str(caught.value)
    assert path.name in message
    assert all(word in message for word in words), message
    assert message.endswith(".") and "\n" not in message
    assert message.isascii() and len(message) < 600 + len(str(path))


@pytest.mark.parametrize(("content", "word"), NO_SAFETENSORS.values(), ids=NO_SAFETENSORS)
def test_files_that_are_no_safetensors_are_recognised(content, word, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    path.write_bytes(content)
    refuse(path, word)


def test_a_file_that_is_not_there(tmp_path):
    refuse(tmp_path / "clear_local_8.safetensors", "does not exist")


def test_a_folder(tmp_path):
    refuse(tmp_path, "cannot be read")


def test_a_torch_file(tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    torch.save({WEIGHT: torch.zeros(2, 2)}, path)
    refuse(path, "pickle", "only .safetensors")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_file_says_how_many_bytes_are_missing(share, published_file):
    path = published_file()
    content = path.read_bytes()
    kept = max(9, int(len(content) * share))
    path.write_bytes(content[:kept])
    refuse(path, f"cut off: it has {kept} of ", "download it again")


def test_a_file_with_bytes_behind_its_end(published_file):
    path = published_file()
    path.write_bytes(path.read_bytes() + b"more")
    refuse(path, "4 bytes more")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a": }',
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": {**ENTRY, "dtype": 3}},
        {"a": {**ENTRY, "shape": [2.0]}},
        {"a": {**ENTRY, "shape": [-2]}},
        {"a": {**ENTRY, "shape": [True, 2]}},
        {"a": {**ENTRY, "shape": [3]}},
        {"a": {**ENTRY, "shape": [2**70]}},
        {"a": {**ENTRY, "data_offsets": [0]}},
        {"a": {**ENTRY, "data_offsets": [8, 0]}},
        {"a": {**ENTRY, "data_offsets": [-8, 0]}},
        {"a": ENTRY, "b": ENTRY},
        {"a": {**ENTRY, "data_offsets": [8, 16]}},
        {"__metadata__": [1], "a": ENTRY},
        {"\ud800": 1},
    ],
    ids=lambda header: (header if isinstance(header, bytes) else json.dumps(header).encode())[:40],
)
def test_damaged_headers(header, raw_file, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    path.write_bytes(raw_file(header, bytes(8)))
    refuse(path, "is damaged")


def test_the_reason_of_safetensors_is_passed_on_escaped_and_shortened(raw_file, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    name = "\u202e\n" + "x" * 5000
    path.write_bytes(raw_file({name: {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)))
    refuse(path, f"safetensors {safetensors.__version__} cannot use its header, ", r"\u202e", "...")


@pytest.mark.parametrize("length", [4_000_001, 2**63, 2**64 - 1])
def test_an_absurdly_long_header(length, raw_file, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    path.write_bytes(raw_file({"a": ENTRY}, bytes(8), length))
    refuse(path, "its header must be at most 4000000 bytes long", str(length))


LONG = 800_000
SCALAR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
LARGE_HEADERS = {
    "a long shape": ({"a": {**SCALAR, "shape": [1] * LONG}}, "at most 16 dimensions"),
    "a long shape of huge sizes": ({"a": {**SCALAR, "shape": [2**62] * 80_000}}, "at most 16"),
    "a long shape that is empty": (
        {"a": {"dtype": "F32", "shape": [0] * LONG, "data_offsets": [0, 0]}},
        "at most 16",
    ),
    "one huge size": (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 2 * LONG + b"]}}", "damaged"),
    "many tensors": (
        {f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)},
        "at most 20000 tensors, got 30000",
    ),
    "a long name": ({"transformer_blocks." * (LONG // 10): SCALAR}, "not a CLEAR checkpoint"),
    "long metadata": (
        {"__metadata__": {f"{n}": "" for n in range(LONG // 10)}, "a": SCALAR},
        "not a CLEAR checkpoint",
    ),
    "deep nesting": (b'{"a":' + b"[" * LONG + b"]" * LONG + b"}", "damaged"),
    "long offsets": ({"a": {**SCALAR, "data_offsets": [0] * LONG}}, "damaged"),
}


@pytest.mark.parametrize(("header", "words"), LARGE_HEADERS.values(), ids=LARGE_HEADERS)
def test_a_hostile_header_is_refused_within_two_seconds(header, words, raw_file, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    path.write_bytes(raw_file(header, bytes(4)))
    began = time.process_time()  # other programs must not count
    refuse(path, words)
    assert time.process_time() - began < 2


def test_a_wrong_shape_is_refused_in_a_short_sentence(published_file, raw_file):
    path = published_file(changes={WEIGHT: torch.zeros([1] * 15 + [36])})
    refuse(path, "must have the shape [6, 6], got [1, 1, ")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    shape = ("[" + "1," * LONG + "36]").encode()
    before = b"[" + b"1," * 15 + b"36]"
    header = content[8 : 8 + length].rstrip()
    assert before in header
    path.write_bytes(raw_file(header.replace(before, shape), content[8 + length :]))
    refuse(path, "at most 16 dimensions")


def test_shapes_in_metadata_are_not_counted(published_file):
    told = json.dumps({"shape": [1] * 99, "data_offsets": [0, 4]}) * 999
    assert read(published_file(metadata={"clear.radius": "8", "notes": told})).radius == 8


def test_a_file_without_tensors(raw_file, tmp_path):
    path = tmp_path / "clear_local_8.safetensors"
    path.write_bytes(raw_file({}))
    refuse(path, "holds no tensors")


OTHER_MODELS = {
    "LoRA, diffusers": ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "Load LoRA"),
    "LoRA, kohya": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "Load LoRA"),
    "LoRA, BFL": ("double_blocks.0.img_attn.qkv.lora_B.weight", "Load LoRA"),
    "ControlNet": ("controlnet_x_embedder.weight", "Load ControlNet"),
    "BFL model": ("double_blocks.0.img_attn.qkv.weight", "Load Diffusion Model"),
    "checkpoint": ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Load Checkpoint"),
    "diffusers model": ("transformer_blocks.0.norm1.linear.weight", "Load Diffusion Model"),
    "CLIP": ("text_model.encoder.layers.0.fc1.weight", "text encoder, not a CLEAR checkpoint"),
    "T5": ("encoder.block.0.layer.0.SelfAttention.q.weight", "Load CLIP"),
    "VAE": (
        "decoder.conv_in.weight",
        "is a VAE, not a CLEAR checkpoint: load it with the Load VAE",
    ),
    "VAE, diffusers": ("encoder.conv_in.bias", "Load VAE"),
}


@pytest.mark.parametrize(("name", "words"), OTHER_MODELS.values(), ids=OTHER_MODELS)
@pytest.mark.parametrize("inside_clear", [False, True])
def test_other_models_are_sent_to_their_loader(name, words, inside_clear, published_file):
    only = {} if inside_clear else dict.fromkeys(read(published_file()).tensors)
    refuse(published_file(changes={**only, name: torch.zeros(2, 2)}), words)


def test_a_checkpoint_without_double_blocks(published_file):
    refuse(published_file(double=0), "not a CLEAR checkpoint")


@pytest.mark.parametrize("factor", [0, 4])
def test_every_missing_tensor_is_noticed(factor, published, published_file):
    for name in published(double=1, single=1, factor=factor):
        path = published_file(double=1, single=1, factor=factor, changes={name: None})
        refuse(path, "1 tensor(s) are missing", f"'{name}'")


def test_missing_blocks_are_counted_and_the_first_are_named(published, published_file):
    lost = [
        n
        for n in published()
        if n.startswith(("transformer_blocks.0", "single_transformer_blocks.1"))
    ]
    path = published_file(changes=dict.fromkeys(lost))
    refuse(path, "14 tensor(s) are missing", f"'{lost[0]}'", "and 11 more")


def test_a_block_number_beyond_all_reason_is_answered_at_once(published_file):
    name = "single_transformer_blocks.999.attn.to_q.weight"
    refuse(published_file(changes={name: torch.zeros(6, 6)}), "tensor(s) are missing")


@pytest.mark.parametrize("factor", [0, 4])
def test_every_shape_is_checked(factor, published, published_file):
    for name, tensor in published(double=1, single=1, factor=factor).items():
        wrong = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1)
        path = published_file(double=1, single=1, factor=factor, changes={name: wrong})
        refuse(path, "must have the shape")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_no_weights(dtype, published_file):
    refuse(published_file(changes={WEIGHT: torch.zeros(6, 6, dtype=dtype)}), "floating-point")


def test_long_and_odd_names_are_shortened_and_escaped(published_file):
    refuse(published_file(changes={"\u202e\n" + "x" * 5000: torch.zeros(1)}), r"'\u202e\nxxx")


@pytest.mark.parametrize(
    ("name", "metadata"),
    [("x.safetensors", None), ("x.safetensors", {"format": "pt"})],
)
def test_a_file_that_does_not_say_its_radius(name, metadata, published_file):
    with pytest.raises(CheckpointError, match=r"set the radius input"):
        read(published_file(name, metadata=metadata))
