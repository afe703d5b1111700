"""The nodes in other languages: nothing missing, nothing stale, no English left over."""

from __future__ import annotations

import re

import pytest
from pack import NODES, WORKFLOWS

from tools import locales

# What stays as it is in every language: products, files, and choices, which the page never
# translates.
NAMES = """
AMD Attention CLEAR CLIP ComfyUI ControlNet FLUX FLUX.1 FLUX.2 GPU HiDream-O1 Hunyuan Image K
KSampler Lanczos Latent LoRA lora NTK NVIDIA Qwen-Image SD3 Transformer Triton VAE vae Z-Image cfg
dev matplotlib softmax token x y adamw prodigy auto flex masked reference tiled triton triton_int8
both horizontal vertical none bypass custom double single joint all cuda local host port GB GbE
PCIe NVLink DINOv2 SigLIP Ray Linux docs/cluster.md x16 GB/s clear_local_16.safetensors
clear_local_16_rank_128 models/clear models/loras/clear output/clear_distill adamw8bit bitsandbytes
"""
PRESETS = ("keep my picture", "add detail", "repaint")
OWN_LETTERS = ("zh", "zh-TW", "ja", "ko", "ru")
ENGLISH = r"\b(the|of|and|with|which|its|that|takes|without|picture|pictures|makes|for|by)\b"
HOSTS_CATEGORIES = {"image", "upscaling", "model", "patch", "training"}


@pytest.fixture(scope="module")
def current(node_classes):
    return locales.schema_texts(node_classes)


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_no_text_is_missing_or_stale(language, current):
    assert locales.faults_of(language, current) == []


def test_a_changed_text_makes_its_translations_stale(current):
    key = ("CLEARLoader", "inputs", "strength", "tooltip")
    for changed in ({**current, key: "Other words."}, {**current, (*key, "new"): "A new text."}):
        assert any(".".join(key) in fault for fault in locales.faults_of("zh", changed))
    fewer = {each: text for each, text in current.items() if each != key}
    assert locales.faults_of("zh", fewer) == [f"zh: stale {'.'.join(key)}"]


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_no_english_is_left_over(language, current):
    for key, text in locales.read(language).items():
        for preset in PRESETS:
            text = text.replace(preset, "")
        if language in OWN_LETTERS:
            words = {word.rstrip(".-/") for word in re.findall(r"[A-Za-z][\w./-]*", text, re.ASCII)}
            assert words <= set(NAMES.split()), key
        else:
            assert not re.search(ENGLISH, text), key
            assert key[-1] not in ("tooltip", "description") or text != current[key], key


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_a_translation_has_the_numbers_of_its_original(language, current):
    for key, text in locales.read(language).items():
        assert numbers(current[key]) <= numbers(text), key


@pytest.mark.parametrize("language", ["en", *locales.LANGUAGES])
def test_nothing_in_a_text_is_an_instruction_to_the_page(language):
    for name in (locales.FILE, "main.json"):
        for key, text in locales.read(language, name).items():
            assert not re.search(r"[{}@|]", text), key


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_categories_that_the_page_does_not_know_have_names(language, node_classes):
    parts = {
        part
        for node in node_classes.values()
        for part in node.define_schema().category.split("/")
        if part != "CLEAR"
    }
    named = {key[-1] for key in locales.read(language, "main.json")}
    assert parts - HOSTS_CATEGORIES == named


@pytest.mark.parametrize("node_id", NODES)
@pytest.mark.parametrize("language", ["zh", "ja"])
def test_a_help_page_has_the_texts_that_the_page_shows(node_id, language):
    texts = locales.read(language)
    page = (WORKFLOWS.parent / "web" / "docs" / node_id / f"{language}.md").read_text("utf-8")
    assert page.splitlines()[0] == f"# {texts[node_id, 'display_name']}"
    for key, name in texts.items():
        if key[:2] == (node_id, "inputs") and key[-1] == "name":
            tooltip = texts[(*key[:-1], "tooltip")]
            assert f"| **{name}** | {tooltip} |" in page, name
    assert re.findall(r"^\d+\. ", page, re.MULTILINE) == ["1. ", "2. ", "3. "]


def numbers(text):
    """Return the numbers in a text, however thousands are written."""
    joined = re.sub(r"(?<=\d)[,.\s](?=000(?!\d))", "", text)
    return set(re.findall(r"\d+(?:\.\d+)?", joined))
