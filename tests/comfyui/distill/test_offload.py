"""A teacher in main memory: what a block fetches goes when it ends, and nothing else changes."""

from __future__ import annotations

import dataclasses
import math
import weakref

import pytest
import torch

from clear_attention.distill.config import ConfigError, StudentConfig, Training

from ..distil_fixtures import WIDTHS, WordsCLIP, config, gradients, student_of

MODELS = list(WIDTHS)
STUDENT = StudentConfig(radius=2, rank=3)


class Boundary:
    """Stands for the way to a device: the weights that a layer fetches are copies, and counted.

    Attributes:
        blocks: Name of the block that a layer belongs to, "" for none.
        bytes: Of copies that are still there, by block.
        peak: The most of them at one time, without those of no block.
        together: The most blocks with copies at one time.
        moved: Bytes that were copied in all.
    """

    def __init__(self, network, blocks):
        self.blocks = dict.fromkeys(network.modules(), "")
        for number, block in enumerate(blocks):
            self.blocks |= dict.fromkeys(block.modules(), str(number))
        self.bytes = dict.fromkeys(self.blocks.values(), 0)
        self.peak = self.together = self.moved = 0

    def around(self, cast_bias_weight):
        def fetch(layer, *args, **kwargs):
            found = cast_bias_weight(layer, *args, **kwargs)
            return *(self.copied(self.blocks[layer], each) for each in found[:2]), *found[2:]

        return fetch

    def copied(self, block, tensor):
        if tensor is None:
            return None
        copy = tensor.clone()
        self.bytes[block] += copy.nbytes
        self.moved += copy.nbytes
        weakref.finalize(copy.untyped_storage(), self.gone, block, copy.nbytes)
        there = [size for name, size in self.bytes.items() if name and size]
        self.peak, self.together = max(self.peak, sum(there)), max(self.together, len(there))
        return copy

    def gone(self, block, size):
        self.bytes[block] -= size


@pytest.fixture
def boundary(monkeypatch):
    """Put a boundary between main memory and the device, which on a CPU are one."""
    import comfy.ops

    real = comfy.ops.cast_bias_weight

    def boundary(denoiser):
        made = Boundary(denoiser.network, denoiser._blocks())
        monkeypatch.setattr(comfy.ops, "cast_bias_weight", made.around(real))
        return made

    return boundary


@pytest.fixture
def denoiser_of(teacher):
    from clear_attention.comfyui.distill.denoiser import HostDenoiser

    def make(name, in_main_memory=True, model=None):
        with torch.inference_mode():
            return HostDenoiser(model or teacher(name), in_main_memory=in_main_memory)

    return make


def size_of(module):
    """Return the bytes of a module's weights as float32, in which these models compute."""
    return 4 * sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_of_one_block_are_on_the_device_where_blocks_are_recomputed(
    name, denoiser_of, boundary
):
    found = {}
    for recomputed in (False, True):
        denoiser = denoiser_of(name)
        task = student_of(denoiser, name, STUDENT, gradient_checkpointing=recomputed)
        found[recomputed] = boundary(denoiser)
        gradients(task, name)
    sizes = [size_of(block) for block in denoiser._blocks()]
    kept, freed = found[False], found[True]
    # Else the backward pass has all blocks there; those of SD3 recompute themselves.
    assert kept.together == (1 if name == "3.5-medium" else len(sizes))
    assert freed.together == 1 and freed.peak <= max(sizes)
    assert freed.peak < kept.peak <= sum(sizes) or name == "3.5-medium"
    # Teacher and student, and the student's blocks once more on the way back.
    assert 2 * sum(sizes) < freed.moved <= 3 * size_of(denoiser.network)
    assert not any(freed.bytes[block] for block in freed.bytes if block)


def test_weights_are_fetched_on_the_stream_that_computes(denoiser_of, monkeypatch):
    import comfy.model_management as management

    monkeypatch.setattr(management, "NUM_STREAMS", 2)
    for in_main_memory, streams in ((True, 0), (False, 2)):
        denoiser = denoiser_of("3.5-medium", in_main_memory)
        with denoiser.training(checkpointing=True):
            assert streams == management.NUM_STREAMS
        assert management.NUM_STREAMS == 2


def test_a_model_that_the_host_pages_itself_is_refused(teacher, product, tmp_path):
    training = Training(offload=True, gradient_checkpointing=True)
    settings = config(tmp_path, "b", training=training, student=STUDENT)
    model = teacher("b")
    product("comfyui.distill.checks").require_possible(model, settings)
    model.is_dynamic = lambda: True
    with pytest.raises(ValueError, match="start it without dynamic VRAM"):
        product("comfyui.distill.checks").require_possible(model, settings)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradients_are_those_of_a_model_on_the_device_to_the_bit(name, denoiser_of, boundary):
    found = []
    for in_main_memory in (False, True):
        denoiser = denoiser_of(name, in_main_memory)
        streams = [getattr(m, "comfy_cast_weights", False) for m in denoiser.network.modules()]
        assert any(streams) is in_main_memory
        task = student_of(denoiser, name, STUDENT, gradient_checkpointing=True)
        if in_main_memory:
            boundary(denoiser)
        found.append(gradients(task, name))
    (loss, kept), (again, fetched) = found
    assert again == loss
    assert all(torch.equal(gradient, fetched[key]) for key, gradient in kept.items())


def test_loras_of_the_teacher_count_and_its_weights_stay(teacher, denoiser_of):
    model = teacher("b")
    key = next(key for key in model.model_state_dict() if key.endswith("qkv.weight"))
    model.add_patches({key: (torch.full(model.model_state_dict()[key].shape, 0.05),)})
    before = model.model.state_dict()[key].clone()
    found = []
    for in_main_memory in (False, True):
        denoiser = denoiser_of("b", in_main_memory, model)
        task = student_of(denoiser, "b", STUDENT, gradient_checkpointing=True)
        found.append(gradients(task, "b")[0])
        model.unpatch_model()
    plain = gradients(student_of(denoiser_of("b"), "b", STUDENT, gradient_checkpointing=True), "b")[
        0
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert abs(plain - found[0]) > 1e-3 * found[0]
    assert torch.equal(model.model.state_dict()[key], before)


def test_a_run_in_main_memory_trains_the_same_and_reports_what_it_holds(
    teacher, sd3_folders, pack, host, tmp_path
):
    from safetensors.torch import load_file

    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher

    said, results = [], []
    for offload in (False, True):
        settings = config(tmp_path / str(offload), "b", student=STUDENT)
        training = dataclasses.replace(
            settings.training, gradient_checkpointing=True, offload=offload, validate_every=2
        )
        settings = dataclasses.replace(settings, training=training)
        watcher = Watcher(message=said.append, pictures=lambda *_: None)
        model = teacher("b")
        with torch.inference_mode():
            assert distil(model, WordsCLIP(WIDTHS["b"]), settings, ["one two", "three"], watcher)
        results.append(load_file(settings.output))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())
    told = [text for text in said if "of memory" in text]
    size = model.model_size() / 1e9
    assert "main memory holds" not in told[0]
    assert f"; main memory holds {size:.1f} GB of the teacher. The rehearsal took" in told[1]
    assert [text for text in said if "no effect" in text] == [
        "training.offload has no effect on a CPU, whose memory is main memory"
    ]


def test_the_device_is_expected_to_hold_the_largest_block(teacher, host):
    from clear_attention.comfyui.distill.offload import COMPUTED, bytes_on_device

    model = teacher("b")
    network = model.model.diffusion_model
    blocks = [*network.double_blocks, *network.single_blocks]
    assert bytes_on_device(model) == max(map(size_of, blocks))
    model.model.diffusion_model.to(torch.float8_e4m3fn)
    numbers = max(sum(math.prod(p.shape) for p in block.parameters()) for block in blocks)
    assert bytes_on_device(model) == COMPUTED * numbers


def test_what_it_needs_is_named(teacher, product, tmp_path):
    with pytest.raises(ConfigError, match=r"needs training\.gradient_checkpointing = true"):
        Training(offload=True)
    training = Training(offload=True, gradient_checkpointing=True)
    whole = config(tmp_path, "b", training=training)
    with pytest.raises(ValueError, match=r"got student\.rank = 0: set a rank"):
        product("comfyui.distill.checks").require_possible(teacher("b"), whole)
