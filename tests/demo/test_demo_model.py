"""The demo's stand-ins, without ComfyUI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from clear_attention.weights import checkpoint as clear_files  # noqa: E402 - needs the path
from demo import install  # noqa: E402
from demo.nodes import checkpoint, text  # noqa: E402
from demo.students import STUDENTS  # noqa: E402


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


def test_the_demo_has_a_clear_file_per_student_with_its_window(tmp_path):
    install.write_models(tmp_path)
    found = {}
    for path in (tmp_path / "models" / "clear").iterdir():
        read = clear_files.read(path)
        found[path.name] = (read.radius, read.pool_factor, read.base, dict(read.size.blocks))
    assert found == {
        name: (*window, "CLEAR demo", {"double": 1, "single": 4})
        for name, window in STUDENTS.items()
    }


def test_the_students_projections_differ_from_their_teachers():
    base = checkpoint.base_weights()
    for name in STUDENTS:
        read = clear_files.read(checkpoint.MODELS / name)
        student = clear_files.load(read)
        for key, teachers in read.table.from_host(base, read.size).items():
            change = (student[key].float() - teachers.float()).norm() / teachers.float().norm()
            assert key.endswith("bias") or 1e-3 < change < 1.0, (name, key)


def test_the_shipped_models_are_small():
    files = list(checkpoint.MODELS.glob("*.safetensors"))
    assert len(files) == 7
    assert sum(file.stat().st_size for file in files) <= 22_000_000
    weights = checkpoint.base_weights()
    assert sum(weight.numel() for weight in weights.values()) <= 12_000_000
