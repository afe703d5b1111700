"""Two groups of settings: a window node replaces its own whole, and leaves every other as it is.

The tests enumerate the fields, so that a new one is covered on the day that it is added.
"""

from __future__ import annotations

import dataclasses

import pytest

EARLIER = "of an earlier node"
NODES = {
    "CLEARAttention": (7,),
    "CLEARLoader": ("clear_b_down4.safetensors", 1.0, 4),
}


@pytest.fixture
def groups(product):
    """The class of a window's settings, and that of all."""
    settings = product("comfyui.core.settings")
    return settings.WindowSettings, settings.Settings


@pytest.fixture
def after(flux_model, nodes, clear_folder, product):
    """Return the settings that a node leaves on a model that has these, or none."""
    patch = product("comfyui.core.patch")

    def apply(node, earlier=None):
        model = flux_model("b")
        if earlier is not None:
            model = patch.with_settings(model)
            model.model_options["transformer_options"][patch.SETTINGS_KEY] = earlier
        return patch.settings_of(getattr(nodes, node)(model, *NODES[node]))

    return apply


def names_of(group):
    return [field.name for field in dataclasses.fields(group)]


def values(local):
    """Return the fields as values that can be compared."""
    learned = {block: pooling.weight.tolist() for block, pooling in local.pool_weights.items()}
    return {name: getattr(local, name) for name in names_of(local)} | {"pool_weights": learned}


@pytest.mark.parametrize("node", NODES)
def test_nothing_of_an_earlier_window_is_left(node, groups, after):
    window, settings = groups
    earlier = window(**dict.fromkeys(names_of(window), EARLIER))
    later = after(node, settings(local=earlier)).local
    assert EARLIER not in [getattr(later, name) for name in names_of(window)]
    assert values(later) == values(after(node).local)


@pytest.mark.parametrize("node", NODES)
def test_what_other_nodes_ask_for_stays(node, groups, after):
    _, settings = groups
    others = [name for name in names_of(settings) if name != "local"]
    later = after(node, settings(**{name: (EARLIER,) for name in others}))
    assert {name: getattr(later, name) for name in others} == {name: (EARLIER,) for name in others}


def test_each_setting_is_of_one_group(groups):
    window, settings = groups
    assert not set(names_of(window)) & set(names_of(settings))


def test_other_settings_leave_the_window_alone(flux_model, groups, product):
    patch, (window, _) = product("comfyui.core.patch"), groups
    local = window(5, backend="tiled", min_tokens=9)
    model = patch.with_window(flux_model("a"), local)
    changed = patch.with_settings(
        model,
        proportional=True,
        wrap_height=True,
        wrap_width=True,
        name_blocks=True,
        observer=print,
    )
    assert patch.settings_of(changed).local is local
    assert patch.settings_of(patch.with_settings(changed)) == patch.settings_of(changed)


def test_every_other_setting_can_be_changed_and_changed_back(flux_model, groups, product):
    patch, (_, settings) = product("comfyui.core.patch"), groups
    kept = {
        "local",
        "observers",
        "node_ids",
        "replaced",
        "about",
    }  # not switches: the next tests are about them
    for name in set(names_of(settings)) - kept:
        model = flux_model("a")
        for value in (True, False):
            model = patch.with_settings(model, **{name: value})
            assert getattr(patch.settings_of(model), name) is value


def test_a_nodes_own_line_is_the_last_that_it_gave(flux_model, product):
    patch, model = product("comfyui.core.patch"), flux_model("a")
    for node_id, about in (("1", "one"), ("2", "two"), ("1", "three"), (None, "nobody's")):
        model = patch.with_settings(model, node_id, about=about)
    assert patch.settings_of(model).about == (("2", "two"), ("1", "three"))


def test_an_observer_is_added_once_and_the_last_node_reports_last(flux_model, product):
    patch, model = product("comfyui.core.patch"), flux_model("a")
    for node_id, observer in (("1", print), ("2", repr), ("1", print), (None, None)):
        model = patch.with_settings(model, node_id, observer=observer)
    assert patch.settings_of(model).observers == (print, repr)
    assert patch.settings_of(model).node_ids == ("2", "1")


@pytest.mark.parametrize("direction", ["both", "horizontal", "vertical"])
def test_a_window_wraps_before_and_after_the_node_that_wraps_it(
    direction, flux_model, nodes, product
):
    settings_of = product("comfyui.core.patch").settings_of
    model = flux_model("a")
    before = nodes.CLEARAttention(nodes.CLEARSeamless(model, direction), 6)
    after = nodes.CLEARSeamless(nodes.CLEARAttention(model, 6), direction)
    window = settings_of(before).window_of(None)
    assert window == settings_of(after).window_of(None)
    wraps = {"both": (True, True), "horizontal": (False, True), "vertical": (True, False)}
    assert (window.radius, window.wrap_height, window.wrap_width) == (6, *wraps[direction])
    assert not settings_of(nodes.CLEARAttention(model, 6)).window_of(None).wraps


def test_settings_change_nothing_of_the_model_that_was_given(flux_model, groups, product):
    patch, (window, _) = product("comfyui.core.patch"), groups
    model = patch.with_window(flux_model("a"), window(5))
    before = patch.settings_of(model)
    patch.with_settings(patch.with_window(model, None, "3"), "4", proportional=True)
    assert patch.settings_of(model) is before


def test_what_belongs_to_blocks_is_gone_for_another_network(groups):
    window, _ = groups
    blocks = {"pool_factor": 4, "pool_weights": {("double", 0): None}, "dense_blocks": {("a", 0)}}
    blocks["radii"] = {("double", 0): 3}
    others = {name: EARLIER for name in names_of(window) if name not in blocks}
    elsewhere = window(**blocks, **others).without_blocks()
    assert {name: getattr(elsewhere, name) for name in others} == others
    assert not elsewhere.needs_block and elsewhere.pooling(("double", 0)) is None
