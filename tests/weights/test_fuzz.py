"""Whatever a file holds: it is a checkpoint, or a CheckpointError says why not."""

from __future__ import annotations

import json

import pytest
from fuzz import rounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from clear_attention.weights import CheckpointError, load, read

FUZZ = settings(
    max_examples=rounds(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

names = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["__metadata__", "double_blocks.0.x", "a.lora_A.weight"]),
    st.builds(
        "{}transformer_blocks.{}.attn.{}".format,
        st.sampled_from(["", "single_", "x"]),
        st.one_of(st.integers(-2, 1200), st.text(max_size=3)),
        st.sampled_from(["to_q.weight", "to_k.bias", "processor.spatial_weight", "norm_q.weight"]),
    ),
    st.builds(
        "transformer.{}transformer_blocks.{}.attn.to_q.{}".format,
        st.sampled_from(["", "single_"]),
        st.integers(0, 2),
        st.sampled_from(["lora_A.weight", "lora_B.weight", "lora_A", "alpha", "dora_scale"]),
    ),
)
dtypes = st.one_of(
    st.sampled_from(["BF16", "F32", "F8_E4M3", "F8_E8M0", "F4", "I64", "BOOL", "C64"]), st.text()
)
sizes = st.one_of(st.integers(0, 9), st.integers(), st.floats(), st.none(), st.booleans())
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
entries = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {
            "dtype": dtypes,
            "shape": st.lists(sizes, max_size=8),
            "data_offsets": st.lists(sizes, max_size=3),
        }
    ),
)


@pytest.fixture(scope="session")
def check(tmp_path_factory):
    """Read and load a file with this content, with and without a radius given."""
    path = tmp_path_factory.mktemp("fuzz") / "clear_local_8.safetensors"

    def run(content: bytes, radius: object = None) -> bool:
        path.write_bytes(content)
        try:
            load(read(path, radius))
        except CheckpointError as error:
            assert str(error).isascii() and "\n" not in str(error) and len(str(error)) < 1000
            return False
        return True

    return run


@pytest.fixture(scope="session", params=["whole", "low rank"])
def good(request, published, low_rank):
    """The content of a good file of either form."""
    size = dict(hidden=2, double=1, single=1, factor=2)
    if request.param == "whole":
        return save(published(**size))
    return save(low_rank(rank=1, **size), {"clear.radius": "8", "clear.rank": "1"})


@FUZZ
@given(content=st.binary(max_size=600))
def test_any_bytes(content, check):
    assert not check(content)


@FUZZ
@given(header=st.one_of(st.dictionaries(names, entries, max_size=6), json_values))
def test_any_header(header, check, raw_file):
    data = json.dumps(header)
    assert not check(raw_file(data.encode(), bytes(64)))
    assert not check(raw_file(header, bytes(64)))


@FUZZ
@given(data=st.data())
def test_a_good_file_with_changed_header_entries(data, check, good, raw_file):
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    assert check(raw_file(header, good[8 + length :]))
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(header)))
        change = data.draw(st.sampled_from(["drop", "rename", "dtype", "shape", "span", "any"]))
        entry = header.pop(name) if change in ("drop", "rename") else header[name]
        if change == "rename":
            header[data.draw(names)] = entry
        elif change == "any" or not isinstance(entry, dict):
            header[name] = data.draw(entries)
        elif change != "drop":
            key = {"dtype": "dtype", "shape": "shape", "span": "data_offsets"}[change]
            values = {"dtype": dtypes}.get(change, st.lists(sizes, max_size=8))
            header[name] = {**entry, key: data.draw(values)}
        if len(header) < 2:
            break
    check(raw_file(header, good[8 + length :]), data.draw(st.sampled_from([None, 4])))


@FUZZ
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_good_file_cut_anywhere(cut, check, good):
    assert not check(good[: int(len(good) * cut)])


@FUZZ
@given(data=st.data())
def test_a_good_file_with_flipped_bytes(data, check, good):
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(content))


@FUZZ
@given(
    metadata=st.dictionaries(
        st.sampled_from(
            ["clear.family", "clear.radius", "clear.radii", "clear.pool_factor", "clear.rank"]
        ),
        json_values,
    )
)
def test_any_metadata(metadata, check, good, raw_file):
    length = int.from_bytes(good[:8], "little")
    header = {**json.loads(good[8 : 8 + length]), "__metadata__": metadata}
    check(raw_file(header, good[8 + length :]))


@FUZZ
@given(radius=st.one_of(leaves, st.binary()))
def test_any_radius(radius, check, good):
    usable = radius is None or (type(radius) is int and radius > 0)
    assert check(good, radius) == usable
