"""CLEAR weights of FLUX.1 [dev] on a model of [schnell]'s shape: the same, without guidance."""

from __future__ import annotations

import pytest
import torch

from clear_attention.weights import checkpoint, load

from .test_patches import CPU, assert_close, patched_weights, plain_weights

STUDENT = "clear_demo_local_4.safetensors"


@pytest.fixture
def models(host, monkeypatch):
    """Make the demo's model as dev and as schnell, and let the host find its students."""
    import comfy.model_patcher
    import comfy.supported_models
    import folder_paths

    from demo.nodes.checkpoint import MODELS, base_weights
    from demo.nodes.network import required_by_host
    from demo.nodes.sizes import config_of

    entry = ([str(MODELS)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clear", entry)

    def make(name):
        state = base_weights()
        if name == "FluxSchnell":
            state = {key: t for key, t in state.items() if not key.startswith("guidance_in.")}
        config = getattr(comfy.supported_models, name)({**config_of(state), **required_by_host()})
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(state, "")
        model.load_model_weights(state, "")
        return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)

    return make


def sample(model, steps):
    """Paint 16 x 12 tokens as the KSampler node does."""
    import comfy.sample

    draw = torch.Generator().manual_seed(0)
    context = torch.randn(1, 32, 64, generator=draw)
    prompt = [[context, {"pooled_output": torch.randn(1, 64, generator=draw), "guidance": 3.5}]]
    latent = torch.zeros(1, 16, 32, 24)
    noise = torch.randn(latent.shape, generator=draw)
    arguments = (noise, steps, 1.0, "euler", "simple", prompt, prompt, latent)
    with torch.inference_mode():
        return comfy.sample.sample(model, *arguments, disable_pbar=True, seed=1)


def test_dev_weights_run_on_schnell_in_four_steps(models, nodes, product):
    attention = product("comfyui.core.report")
    seen = []
    model = models("FluxSchnell")
    assert "guidance_in.in_layer.weight" not in model.model.diffusion_model.state_dict()
    patched = nodes.CLEARLoader(model, STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention.RunReport, "publish", lambda self, *_: seen.extend(self.lines()))
        local, full = sample(patched, 4), sample(model, 4)
    assert torch.isfinite(local).all() and (local - full).abs().max() > 1e-3
    (line,) = seen
    assert "radius 4, 32 text + 16 x 12 image tokens" in line
    assert line.endswith(f"{4 * 5} attention calls")  # steps x blocks


def test_schnell_gets_the_files_weights_or_what_distilling_changed(models, nodes):
    model, dev = models("FluxSchnell"), models("Flux")
    for tensor in model.model.diffusion_model.parameters():
        tensor.data.mul_(1.25)
    own, base = plain_weights(model), plain_weights(dev)
    found = checkpoint.read(f"{checkpoint_folder()}/{STUDENT}")
    target, change = dict(own), {key: tensor.double() for key, tensor in own.items()}
    tensors = load(found)
    for name, rows in found.table.slices(found.size).items():
        tensor, key = tensors[name], f"diffusion_model.{rows.key}"
        target[key] = target[key].clone()
        target[key].narrow(*rows.offset).copy_(tensor)
        part = change[key].narrow(*rows.offset)
        part += tensor.double() - base[key].narrow(*rows.offset).double()
    replaced = patched_weights(nodes.CLEARLoader(model, STUDENT))
    assert all(torch.equal(replaced[key], target[key]) for key in target)
    added = patched_weights(nodes.CLEARLoader(model, STUDENT, reference_model=dev))
    assert_close(added, change)


def checkpoint_folder():
    from demo.nodes.checkpoint import MODELS

    return MODELS
