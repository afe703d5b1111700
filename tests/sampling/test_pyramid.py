"""Cascades of sizes: what every plan keeps to, and the numbers of the papers."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from clear_attention.sampling import pyramid
from clear_attention.sampling.pyramid import PlanError, Stage, plan

multiples = st.sampled_from([8, 16, 64])
sides = st.integers(64, 3000)
factors = st.floats(1, 20)


def planned(width, height, factor, multiple, **changes):
    size = math.ceil(max(width, height) * factor)
    settings = dict(denoise=[0.7], steps=20, multiple=multiple) | changes
    return size, plan(width, height, size, **settings)


def outlines(stages):
    return [(stage.width, stage.height) for stage in stages]


@given(sides, sides, factors, multiples)
def test_sides_are_multiples_and_the_last_ones_are_what_was_asked_for(width, height, factor, of):
    size, made = planned(width, height, factor, of)
    for stage in made.stages:
        assert stage.width % of == stage.height % of == 0
    assert abs(made.stages[-1].longer - size) <= max(of / 2, of * (size - max(width, height) < of))


@given(sides, sides, factors, multiples)
def test_stages_grow_and_none_is_more_than_twice_the_one_before(width, height, factor, of):
    longer = [max(width, height)]
    longer += [stage.longer for stage in planned(width, height, factor, of)[1].stages]
    assert longer[0] <= longer[1]
    assert all(before < after for before, after in itertools.pairwise(longer[1:]))
    assert all(after <= 2 * before for before, after in itertools.pairwise(longer))


@given(sides, sides, factors, multiples)
def test_the_aspect_ratio_is_kept_to_half_a_multiple(width, height, factor, of):
    for stage in planned(width, height, factor, of)[1].stages:
        exact = max(of, stage.longer * min(width, height) / max(width, height))
        assert abs(min(stage.width, stage.height) - exact) <= of / 2
        assert (stage.width >= stage.height) if width >= height else (stage.height > 0)


@given(sides, sides, factors, multiples)
def test_there_are_as_few_stages_as_twice_allows_but_for_rounding(width, height, factor, of):
    source = max(width, height)
    _, made = planned(width, height, factor, of)
    fewest = max(1, math.ceil(math.log2(made.stages[-1].longer / source) - 1e-9))
    assert fewest <= len(made.stages) <= fewest + 1


@given(sides, sides, factors, multiples)
def test_a_picture_on_its_side_has_the_same_stages_on_their_side(width, height, factor, of):
    assume(width != height)
    upright = planned(width, height, factor, of)[1].stages
    lying = planned(height, width, factor, of)[1].stages
    assert outlines(upright) == [(stage.height, stage.width) for stage in lying]


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ((1024, 1024), 4096, [(2048, 2048), (4096, 4096)]),
        ((1024, 1024), 8192, [(2048, 2048), (4096, 4096), (8192, 8192)]),
        ((1024, 1024), 1024, [(1024, 1024)]),
        ((832, 1216), 4096, [(1520, 2224), (2800, 4096)]),
        ((128, 128), 512, [(256, 256), (512, 512)]),
        ((999, 999), 3984, [(1584, 1584), (2512, 2512), (3984, 3984)]),
        ((106, 106), 848, [(176, 176), (304, 304), (512, 512), (848, 848)]),
        ((1030, 700), 1030, [(1040, 704)]),
    ],
)
def test_known_cascades(source, size, expected):
    assert outlines(plan(*source, size, denoise=[0.7], steps=20).stages) == expected


def test_rounding_is_told_and_exact_sizes_are_not():
    assert plan(1024, 512, 4096, denoise=[0.7], steps=20).notes == ()
    (note,) = plan(1000, 667, 4000, denoise=[0.7], steps=20).notes
    assert note.startswith("4000 x 2668 is rounded to 4000 x 2672: model and VAE need multiples of")


def test_stages_on_the_way_can_be_chosen():
    made = plan(1024, 512, 4096, denoise=[0.7], steps=20, via=[3000, 1504])
    assert outlines(made.stages) == [(1504, 752), (3008, 1504), (4096, 2048)]
    assert made.notes == ()


def test_chosen_stages_that_do_not_fit_are_left_out_with_a_word():
    made = plan(1024, 1024, 4096, denoise=[0.7], steps=20, via=[512, 1024, 2048, 4096, 8192])
    assert outlines(made.stages) == [(2048, 2048), (4096, 4096)]
    assert len(made.notes) == 4 and all("is left out" in note for note in made.notes)


def test_a_larger_step_that_was_asked_for_is_taken_with_a_word():
    made = plan(1024, 1024, 8192, denoise=[0.7], steps=20, via=[2048])
    assert outlines(made.stages) == [(2048, 2048), (8192, 8192)]
    assert made.notes == ("2048 to 8192 pixels is 4.0 x; 2 x repeats itself less",)


def test_the_authors_recipe_runs_the_last_14_of_20_steps():
    assert pyramid.first_step(20, 0.7) == 6


@given(st.integers(1, 200), st.integers(0, 100))
@example(100, 7)  # 7.000000000000001 in floating point
@example(100, 29)  # 28.999999999999996
def test_the_steps_that_run_are_the_share_rounded_up(steps, percent):
    kept = steps - pyramid.first_step(steps, percent / 100)
    assert kept == -(-steps * percent // 100)


def test_each_stage_has_its_strength_and_the_last_one_is_repeated():
    made = plan(256, 256, 4096, denoise=[1.0, 0.5, 0.0], steps=10)
    assert [stage.kept for stage in made.stages] == [10, 5, 0, 0]
    made = plan(256, 256, 512, denoise=[1.0, 0.5, 0.0], steps=10)
    assert [stage.kept for stage in made.stages] == [10]
    assert made.notes == ("the first 1 of 3 values of denoise are used",)


def test_positions_and_scale_change_beyond_the_trained_size_only():
    made = plan(512, 512, 8192, denoise=[0.7], steps=20)
    assert [stage.ntk_factor for stage in made.stages] == [1, 10, 10, 10]
    assert [stage.proportional for stage in made.stages] == [False, True, True, True]
    large = plan(1536, 1536, 1536, denoise=[0.7], steps=20, trained=1536).stages[-1]
    assert (large.ntk_factor, large.proportional) == (1, False)
    known = plan(1024, 1024, 1024, denoise=[0.7], steps=20, trained=512).stages[-1]
    assert (known.ntk_factor, known.proportional) == (10, False)  # the scale would be 1
    wide = plan(512, 64, 2048, denoise=[0.7], steps=20).stages[-1]
    assert (wide.ntk_factor, wide.proportional) == (10, False)  # few tokens, far apart


def test_a_model_is_left_as_it_is_where_no_trained_size_is_given():
    made = plan(512, 512, 8192, denoise=[0.7], steps=20, trained=0)
    assert {(stage.ntk_factor, stage.proportional) for stage in made.stages} == {(1.0, False)}


def test_very_far_beyond_the_trained_size_the_factor_is_ntk_awares():
    assert pyramid.ntk_factor(9000, 1000) == 10
    assert pyramid.ntk_factor(16000, 1000) == pytest.approx(16 ** (56 / 54))


def test_the_softmax_scale_of_a_stage_is_the_papers():
    assert pyramid.attention_factor(Stage(4096, 4096, 6, 20)) == 1
    grown = pyramid.attention_factor(Stage(4096, 4096, 6, 20, 10.0, True))
    assert grown == pytest.approx(math.sqrt(math.log(512 + 256**2) / math.log(4608)))


SIGMAS = [0.875, 0.75, 0.5, 0.25, 0.0]


def test_progress_counts_steps_and_interpolates_between_them():
    assert [pyramid.progress_at(sigma, SIGMAS) for sigma in SIGMAS] == [0, 0.25, 0.5, 0.75, 1]
    assert pyramid.progress_at(0.625, SIGMAS) == pytest.approx(0.375)
    assert pyramid.progress_at(2.0, SIGMAS) == 0
    assert pyramid.progress_at(-1.0, SIGMAS) == 1


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 10))
def test_guidance_falls_from_its_strength_to_nothing(first, second, strength, decay):
    early, late = sorted((first, second))
    weight = pyramid.guidance_weight
    assert 0 <= weight(late, strength, decay) <= weight(early, strength, decay) <= strength
    assert weight(0, strength, decay) == strength
    assert weight(0.4, strength, 0) == strength


def test_guidance_with_decay_1_is_i_maxs_cosine():
    steps = 30
    for step in range(steps):
        expected = 0.5 * (1 + math.cos(math.pi * step / steps))
        assert pyramid.guidance_weight(step / steps, 1, 1) == pytest.approx(expected)


@given(st.integers(2, 999), st.integers(2, 999), st.floats(1, 4))
def test_guidance_leaves_something_to_paint(height, width, factor):
    low = (math.ceil(height / factor), math.ceil(width / factor))
    found = pyramid.guidance_size(height, width, *low)
    assert found[0] <= low[0] and found[1] <= low[1]
    assert found[0] <= math.ceil(height / 2) and found[1] <= math.ceil(width / 2)
    if factor >= 2:
        assert found == low


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(size=512), r"at least the picture's longer side, 1024, got 512\. Set a larger size"),
        (dict(height=8), r"at least 16 pixels on each side, got 1024 x 8\. Enlarge"),
        (dict(denoise=[0.7, 1.2]), r'denoise must be one number from 0 to 1 .* got "0.7, 1.2"'),
        (dict(denoise=[]), r'denoise must be one number .* got ""'),
    ],
    ids=["too small a size", "too small a picture", "too strong", "no strength"],
)
def test_what_cannot_be_is_one_sentence(changes, sentence):
    good = dict(width=1024, height=768, size=4096, denoise=[0.7], steps=20)
    with pytest.raises(PlanError, match=sentence):
        plan(**good | changes)
