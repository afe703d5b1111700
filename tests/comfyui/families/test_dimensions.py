"""The dimensions of every architecture's model are those of the layers that it runs."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .zoo import ENTRIES
from .zoo_models import conditioning, latent, present, sampled

LINEAR = ("aten.mm", "aten.addmm", "aten.convolution")
ROWS, COLUMNS, MORE = 8, 8, 8
TEXT, MORE_TEXT = 32, 32
"""Multiples of what Z-Image fills the picture and the text up to."""

PADDED = {"flux2": "the host makes each prompt as long as 512 tokens"}
LATENT_PX = {3: 1, 32: 16, 48: 16, 64: 32, 128: 16}
"""Channels of a latent -> edge of one of its pixels in pixels, 8 for all others."""

PER_WORD = {"hidream": 3}
"""Tokens of the sequence for one word of each of a model's texts."""


@pytest.fixture
def counted(zoo_model):
    """Return how many weights a step multiplies with, as torch counts its operations."""

    def count(name, columns, text):
        model, entry = zoo_model(name), ENTRIES[name]
        network = model.model.diffusion_model
        getattr(network, "clear_kv_cache", lambda: None)()  # the text runs in the first step
        # Torch counts a layer on a transposed picture among the attention's products.
        hooks = [
            layer.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
            for layer in network.modules()
            if isinstance(layer, nn.Linear)
        ]
        try:
            with FlopCounterMode(display=False) as counter:
                noise = latent(entry, rows=ROWS, columns=columns)
                sampled(model, noise, conditioning(entry, text))
        finally:
            for hook in hooks:
                hook.remove()
        found = counter.get_flop_counts()["Global"].items()
        return sum(flop for kind, flop in found if str(kind) in LINEAR) // 2

    return count


@pytest.fixture
def network_of(product, zoo_model):
    """Return the dimensions of an entry's model."""
    of = product("comfyui.core.job").network_of
    return lambda name: of(zoo_model(name))


@pytest.mark.parametrize("name", present())
def test_image_tokens_are_multiplied_with_the_weights_that_the_model_has_for_them(
    name, counted, network_of
):
    more = counted(name, COLUMNS + MORE, TEXT) - counted(name, COLUMNS, TEXT)
    assert more == ROWS * MORE * network_of(name).image_weights


@pytest.mark.parametrize("name", [name for name in present() if name not in PADDED])
def test_text_tokens_are_multiplied_with_the_weights_that_the_model_has_for_them(
    name, counted, network_of
):
    more = counted(name, COLUMNS, TEXT + MORE_TEXT) - counted(name, COLUMNS, TEXT)
    words = Fraction(more, MORE_TEXT * PER_WORD.get(name, 1))
    assert abs(words - network_of(name).text_weights) < 1  # weights are whole


@pytest.mark.parametrize("name", present())
def test_heads_and_widths_are_those_of_the_attention_calls(name, recorded, network_of, zoo_model):
    entry = ENTRIES[name]
    noise, prompt = latent(entry), conditioning(entry, 9)
    calls = recorded(entry, zoo_model(name), lambda model: sampled(model, noise, prompt))
    network = network_of(name)
    widths = {one.kind: heads[0] * heads[1] for one, heads in heads_of(network)}
    seen = {call.block[0]: call.q.shape[2] for call in calls if call.block}
    assert seen.items() <= widths.items()
    counts = dict.fromkeys(entry.blocks, 2) | dict.fromkeys(entry.twice, entry.blocks_twice)
    assert {one.kind: one.count for one in network.attentions} == counts


def heads_of(network):
    return [(one, network.heads_in(one)) for one in network.attentions]


@pytest.mark.parametrize("name", present())
def test_a_latent_and_its_tokens_have_the_same_number_of_values(name, network_of):
    entry = ENTRIES[name]
    assert network_of(name).latent_values == entry.channels * entry.patch**2


@pytest.mark.parametrize("name", present())
def test_a_plan_is_made_for_every_architecture(name, zoo_model, node_classes):
    entry = ENTRIES[name]
    edge = 8 * entry.patch * LATENT_PX.get(entry.channels, 8)
    with torch.inference_mode():
        plan = node_classes["CLEARPlan"].execute(
            zoo_model(name), edge, edge, radius=3, text_tokens=9
        )
    text, figure, model = plan.args
    assert "9 text + 8 x 8 image tokens" in text and "Verdict: fits." in text
    assert figure.isfinite().all()
    assert sampled(model, latent(entry), conditioning(entry, 9)).isfinite().all()
