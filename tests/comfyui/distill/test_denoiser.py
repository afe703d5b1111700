"""The distiller's view of a host model: velocities, gradients, and that nothing stays behind."""

from __future__ import annotations

import pytest
import torch

from clear_attention.distill.config import StudentConfig
from clear_attention.distill.denoiser import Local, Recorder
from clear_attention.window import Window

from ..distil_fixtures import WIDTHS, gradients, samples, student_of

MODELS = list(WIDTHS)
STUDENTS = {
    "whole": StudentConfig(radius=2),
    "pooled": StudentConfig(radius=2, pool_factor=2),
    "low rank": StudentConfig(radius=2, rank=3),
}
SIGMA = torch.tensor([0.3, 0.8])


@pytest.fixture
def denoiser_of(teacher):
    """Make a denoiser as a node does: the host runs nodes in inference mode."""
    from clear_attention.comfyui.distill.denoiser import HostDenoiser

    def make(name):
        with torch.inference_mode():
            return HostDenoiser(teacher(name))

    return make


def noisy():
    return torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(7))


def every_block(denoiser):
    counts = denoiser.size.blocks
    return frozenset((kind, i) for kind, count in counts.items() for i in range(count))


def distance(one, other):
    return float((one - other).norm() / other.norm())


def flags_of(network):
    return {name: parameter.requires_grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("window", [None, Window(2)], ids=["full", "local"])
@pytest.mark.parametrize("name", MODELS)
def test_the_velocity_is_what_the_host_computes(name, window, teacher, denoiser_of, run):
    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    given = samples(name)
    extra = {} if name == "3.5-medium" else {"guidance": torch.tensor([3.5])}
    model = with_window(teacher(name), WindowSettings(window.radius) if window else None)
    expected = run(model, noisy(), SIGMA, given.context, y=given.pooled, **extra)
    with torch.no_grad():
        local = Local(window) if window else None
        velocity = denoiser_of(name).velocity(noisy(), SIGMA, given, guidance=3.5, local=local)
    torch.testing.assert_close(velocity, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_blocks_give_the_same_gradients_to_all_that_is_trained(
    name, student, denoiser_of
):
    denoiser = denoiser_of(name)
    loss, kept = gradients(student_of(denoiser, name, student), name)
    again, recomputed = gradients(
        student_of(denoiser, name, student, gradient_checkpointing=True), name
    )
    assert again == pytest.approx(loss, rel=1e-6)
    for key, gradient in kept.items():
        assert gradient.norm() > 0, key
        assert distance(recomputed[key], gradient) < 1e-5, key


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_slopes_of_the_loss(name, denoiser_of):
    student = StudentConfig(radius=2, pool_factor=2)
    task = student_of(denoiser_of(name), name, student)
    _, found = gradients(task, name)
    parameters = dict(task.named_parameters())
    chosen = [next(key for key in found if end in key) for end in ("pooling", "weight", "bias")]
    for key in chosen:
        direction = found[key] / found[key].norm()
        losses = []
        for way in (1, -1):
            parameters[key].data += way * 0.01 * direction
            losses.append(gradients(task, name)[0])
            parameters[key].data -= way * 0.01 * direction
        slope = (losses[0] - losses[1]) / 0.02
        # The loss is a float32 near 1: its difference is known to about 1e-7 / 0.02.
        assert slope == pytest.approx(float(found[key].norm()), rel=0.01, abs=2e-5), key


@pytest.mark.parametrize("name", MODELS)
def test_attention_outputs_are_kept_by_block_also_where_the_host_names_none(
    name, denoiser_of, monkeypatch
):
    from clear_attention.comfyui.core import blocks

    denoiser = denoiser_of(name)
    given, outputs = samples(name), []
    for names_blocks in (lambda family: False, blocks._names_blocks):
        monkeypatch.setattr(blocks, "_names_blocks", names_blocks)
        recorder = Recorder(every_block(denoiser))
        with torch.no_grad():
            denoiser.velocity(noisy(), SIGMA, given, guidance=3.5, recorder=recorder)
        outputs.append(recorder.outputs)
    unnamed, named = outputs
    assert unnamed.keys() == named.keys() == every_block(denoiser)
    for (kind, index), output in named.items():
        tokens = 36 + (0 if kind == "image" else given.context.shape[1])
        assert output.shape == (2, tokens, denoiser.size.hidden)
        assert torch.equal(output, unnamed[kind, index])


@pytest.mark.parametrize("name", MODELS)
def test_training_leaves_nothing_behind(name, denoiser_of):
    import comfy.model_management as management

    denoiser = denoiser_of(name)
    network = denoiser.network
    flags = flags_of(network)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    task = student_of(denoiser, name, STUDENTS["pooled"], gradient_checkpointing=True)
    with task.context():
        assert not any(parameter.requires_grad for parameter in network.parameters())
    gradients(task, name)
    assert flags_of(network) == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert not any("forward" in vars(module) for module in network.modules())
    assert not getattr(management, "in_training", False)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["b", "3.5-medium"])
def test_weights_that_were_loaded_in_inference_mode_can_be_trained_on(name, teacher):
    from clear_attention.comfyui.distill.denoiser import HostDenoiser

    with torch.inference_mode():
        model = teacher(name)
        key = next(key for key in model.model_state_dict() if key.endswith("qkv.weight"))
        shape = model.model_state_dict()[key].shape
        model = model.clone()
        model.add_patches({key: (torch.full(shape, 0.125),)})
        plain = model.model.state_dict()[key].clone()
        flags = flags_of(model.model.diffusion_model)
        denoiser = HostDenoiser(model)
    inner = key.removeprefix("diffusion_model.")
    assert not any(parameter.is_inference() for parameter in denoiser.network.parameters())
    assert flags_of(denoiser.network) == {**flags, inner: False}  # the host's, for a patched weight
    assert torch.equal(denoiser.network.state_dict()[inner], plain + 0.125)
    _, found = gradients(student_of(denoiser, name, StudentConfig(radius=2)), name)
    assert all(gradient.norm() > 0 for gradient in found.values())
    model.unpatch_model()
    assert torch.equal(model.model.state_dict()[key], plain)


def test_a_model_with_a_window_is_no_teacher(teacher, nodes):
    from clear_attention.comfyui.distill.denoiser import HostDenoiser

    with pytest.raises(ValueError, match="has a CLEAR window already"):
        HostDenoiser(nodes.CLEARAttention(teacher("b"), 4))


def test_a_host_without_a_gradient_of_rotary_positions_is_named(flux_model, monkeypatch):
    import comfy.ldm.flux.math

    from clear_attention.comfyui.distill.checks import require_trainable

    def apply_rope(*_):
        raise AssertionError

    apply_rope.__module__ = "comfy_kitchen"
    monkeypatch.setattr(comfy.ldm.flux.math, "apply_rope", apply_rope)
    with pytest.raises(ValueError, match=r"cannot train FLUX.*0\.19 or newer\.$"):
        require_trainable(flux_model("b"))


def test_the_scale_of_a_high_resolution_node_counts_for_teacher_and_student(teacher):
    from clear_attention.comfyui.core.patch import with_settings
    from clear_attention.comfyui.distill.denoiser import HostDenoiser

    given, velocities = samples("b"), []
    for proportional in (False, True):
        denoiser = HostDenoiser(with_settings(teacher("b"), proportional=proportional))
        with torch.no_grad():
            for local in (None, Local(Window(2))):
                velocities.append(
                    denoiser.velocity(noisy(), SIGMA, given, guidance=3.5, local=local)
                )
    full, local, full_scaled, local_scaled = velocities
    assert distance(full_scaled, full) > 1e-4
    assert distance(local_scaled, local) > 1e-4
