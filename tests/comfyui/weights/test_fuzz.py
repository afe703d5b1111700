"""Whatever a CLEAR file holds: the model takes all of it, or a sentence says why it takes none."""

from __future__ import annotations

import json

import pytest
import torch
from fuzz import rounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize
from clear_attention.weights import CheckpointError
from clear_attention.weights.extract import extract

from ..golden import FOLDER

FUZZ = settings(
    max_examples=rounds(80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAME = "clear_local_4.safetensors"
SIZE = ModelSize(128, {"double": 2, "single": 3}, 4)
METADATA = {"clear.family": "flux", "clear.radius": "4", "clear.rank": "3"}

dtypes = st.sampled_from(["BF16", "F16", "F32", "F8_E4M3", "I8", "BOOL", "F4", ""])
words = st.sampled_from(["0", "1", "3", "4", "128", "flux", "sd3", "", "-1", "nan", "x" * 99])


@pytest.fixture(scope="module")
def files(host, flux_weights):
    """The content of a good file of either form for the golden model "b"."""
    whole = load_file(FOLDER / "clear_b_down4.safetensors")
    rows = FLUX.slices(SIZE)
    changes = extract(FLUX, rows, flux_weights("b"), whole, rank=3, dtype=torch.bfloat16)
    return {"whole": save(whole), "low rank": save(changes.tensors, METADATA)}


@pytest.fixture(scope="module")
def attempt(flux_model, tmp_path_factory):
    """Load a file with this content onto a model; tell how many patches came, None if refused."""
    import folder_paths

    from clear_attention.comfyui.weights.loader import load_onto

    folder = tmp_path_factory.mktemp("clear")
    models = {form: flux_model("b") for form in ("plain", "reference")}

    def run(content, reference):
        (folder / NAME).write_bytes(content)
        model = models["plain"]
        try:
            patched = load_onto(
                model, NAME, 0.7, reference=models["reference"] if reference else None
            )
        except CheckpointError as error:
            assert str(error).isascii()
            return None
        finally:
            assert model.patches == {} and model.model_options == {"transformer_options": {}}
        for key, entries in patched.patches.items():
            rows = sorted(entry[3][1:] for entry in entries)
            assert rows == sorted(set(rows)) or reference, key
        return sum(map(len, patched.patches.values()))

    before = dict(folder_paths.folder_names_and_paths)
    folder_paths.folder_names_and_paths["clear"] = ([str(folder)], {".safetensors"})
    yield run
    folder_paths.folder_names_and_paths.clear()
    folder_paths.folder_names_and_paths.update(before)


def assemble(header, data):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def taken_apart(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def expected(header, reference):
    """Count the patches of a file that is taken: one for each weight and bias, twice with one."""
    names = [name for name in header if name != "__metadata__"]
    if any("lora_A" in name for name in names):
        return sum("lora_A" in name or name.endswith(".diff_b") for name in names)
    return (1 + reference) * sum(not name.endswith("spatial_weight") for name in names)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("form", ["whole", "low rank"])
def test_a_good_file_is_taken(form, reference, files, attempt):
    header, _ = taken_apart(files[form])
    assert attempt(files[form], reference) == expected(header, reference) > 20


@FUZZ
@given(data=st.data(), form=st.sampled_from(["whole", "low rank"]), reference=st.booleans())
def test_changed_entries_are_taken_whole_or_not_at_all(data, form, reference, files, attempt):
    header, content = taken_apart(files[form])
    names = sorted(header.keys() - {"__metadata__"})
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names))
        entry = header.get(name)
        if entry is None:
            continue
        match data.draw(st.sampled_from(["rename", "swap", "dtype", "shape", "metadata"])):
            case "rename":
                other = data.draw(st.sampled_from(names))
                header[other.replace("0", data.draw(st.sampled_from("0179")), 1)] = header.pop(name)
            case "swap":
                other = data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
                header[name], header[other] = header[other], header[name]
            case "dtype":
                header[name] = {**entry, "dtype": data.draw(dtypes)}
            case "shape":
                header[name] = {**entry, "shape": data.draw(st.permutations(entry["shape"]))}
            case _:
                key = data.draw(st.sampled_from([*METADATA, "clear.pool_factor", "x"]))
                header.setdefault("__metadata__", {})[key] = data.draw(words)
    taken = attempt(assemble(header, content), reference)
    assert taken in (None, expected(header, reference))


@FUZZ
@given(
    cut=st.floats(0, 1, exclude_max=True),
    form=st.sampled_from(["whole", "low rank"]),
)
def test_a_file_cut_anywhere_is_refused(cut, form, files, attempt):
    assert attempt(files[form][: int(len(files[form]) * cut)], False) is None


@FUZZ
@given(data=st.data(), form=st.sampled_from(["whole", "low rank"]))
def test_flipped_bytes_crash_nothing(data, form, files, attempt):
    content = bytearray(files[form])
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        limit = header if data.draw(st.booleans()) else len(content)
        content[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(content), data.draw(st.booleans()))
