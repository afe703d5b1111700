"""The demo's stand-ins, without ComfyUI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from demo.nodes import checkpoint, painter, text  # noqa: E402 - needs the path


@pytest.mark.parametrize(("words", "tokens"), [(0, 32), (5, 32), (32, 32), (40, 40)])
def test_a_prompt_has_at_least_32_tokens_and_more_if_it_is_longer(words, tokens):
    clip = text.DemoCLIP()
    ((cond, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize("word " * words))
    assert cond.shape == (1, tokens, 64)
    assert extra["pooled_output"].shape == (1, 64)


def test_a_word_is_the_same_everywhere_and_different_from_others():
    fox = text.word_vector("fox", 64)
    assert torch.equal(fox, text.word_vector("fox", 64))
    assert abs(torch.cosine_similarity(fox, text.word_vector("snow", 64), dim=0)) < 0.5
    # Drawn once; a change would give other pictures than those in the repository.
    torch.testing.assert_close(fox[:2], torch.tensor([-1.3461, -1.634]), atol=1e-4, rtol=0)


def test_the_demo_clear_file_has_the_published_names_and_says_its_radius(tmp_path):
    path = checkpoint.write_clear_file(tmp_path)
    assert path == tmp_path / "models" / "clear" / "clear_demo_local_8.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata()["clear.radius"] == "8"
        names = set(file.keys())
        value = file.get_tensor("single_transformer_blocks.3.attn.to_v.weight")
    assert len(names) == 2 * 8 + 4 * 6
    base = painter.paint_weights()["single_blocks.3.linear1.weight"][512:768]
    assert value.dtype == torch.bfloat16
    assert 0 < (value.float() - base).abs().max() < 0.1 * base.abs().max()
