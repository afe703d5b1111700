"""Every family that says where its tokens mix paints the same picture on several devices."""

from __future__ import annotations

import pytest

from ..families.zoo import ENTRIES
from ..families.zoo_models import conditioning, latent, methods, present, reference_values, sampled

SHARED = ("flux", "flux2", "chroma", "sd3", "qwen_image", "z_image")
"""Families of which CLEAR Parallel must be able to share the pictures."""

LIMIT = 1e-6


def entries(references=False):
    """List the entries of these families, or each with its methods for reference pictures."""
    names = [name for name in present() if ENTRIES[name].family in SHARED]
    if not references:
        return names
    return [(name, method) for name in names for method in methods(ENTRIES[name])]


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu,cpu"])
@pytest.mark.parametrize("name", entries())
def test_several_devices_paint_the_picture_of_one(name, devices, compared, zoo_model, nodes):
    entry = ENTRIES[name]
    noise = latent(entry, odd=True, batch=2)
    prompts = conditioning(entry, 9), conditioning(entry, 12, 3)
    model = nodes.CLEARAttention(zoo_model(name), radius=2)

    def paint(one):
        # Guidance enlarges every rounding, on one device as on several.
        return sampled(one, noise, *prompts, steps=1, cfg=2.0)

    assert compared(model, devices, paint=paint) < LIMIT


@pytest.mark.parametrize(("name", "method"), entries(references=True))
def test_reference_pictures_are_shared_out(name, method, compared, zoo_model, nodes):
    entry = ENTRIES[name]
    prompt = conditioning(entry, 9, **reference_values(entry, method))
    model = nodes.CLEARAttention(zoo_model(name), radius=2)

    def paint(one):
        return sampled(one, latent(entry), prompt, steps=1)

    assert compared(model, "cpu,cpu,cpu", paint=paint) < LIMIT


def test_each_of_these_families_is_tested():
    assert {ENTRIES[name].family for name in entries()} == set(SHARED)
