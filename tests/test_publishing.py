"""What the Comfy registry and GitHub read: addresses, pictures, versions, workflows, forms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tools import icon, release

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
ACTIONS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(set((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")))
READY = release.with_repository(PYPROJECT, "https://github.com/someone/clear")
CHANGES = "# Changelog\n\n## 0.1.0 - 2026-12-31\nFirst.\n\n## 0.0.9 - 2026-01-01\nBefore.\n"


def test_every_address_follows_from_the_repositorys():
    assert list(release.differing(PYPROJECT)) == []


def test_a_release_with_the_placeholder_is_refused_by_name():
    (fault,) = release.faults(PYPROJECT, CHANGES, "v0.1.0")
    assert release.PLACEHOLDER in fault and "--repository" in fault


def test_entering_the_address_once_changes_all_of_them_and_nothing_else():
    assert list(release.faults(READY, CHANGES, "v0.1.0")) == []
    changed = [
        (old, new)
        for old, new in zip(PYPROJECT.splitlines(), READY.splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == len(release.addresses(release.PLACEHOLDER))
    assert all("someone/clear" in new for _, new in changed)


@pytest.mark.parametrize(
    ("pyproject", "changes", "tag", "named"),
    [
        (READY.replace("someone/clear/issues", "other/issues"), CHANGES, None, "Issues"),
        (READY, CHANGES.replace("2026-12-31", "unreleased"), None, "date"),
        (READY, CHANGES.replace("First.\n", ""), None, "empty"),
        (READY, CHANGES, "v0.2.0", "v0.1.0"),
    ],
    ids=["address", "date", "no changes", "tag"],
)
def test_a_release_that_is_not_ready_is_refused_with_its_reason(pyproject, changes, tag, named):
    (fault,) = release.faults(pyproject, changes, tag)
    assert named in fault


def test_the_notes_of_a_release_are_its_own_section():
    assert release.section(CHANGES, "0.1.0") == ("2026-12-31", "First.")


def test_the_oldest_comfyui_is_the_oldest_that_was_tested():
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    sentence = page.split("pass on unmodified ComfyUI")[1].split("By hand")[0]
    tested = [tuple(map(int, each.split("."))) for each in re.findall(r"\d+\.\d+\.\d+", sentence)]
    oldest = ".".join(map(str, min(tested)))
    assert release.setting(PYPROJECT, "requires-comfyui") == f">={oldest}"
    assert f"ComfyUI {oldest} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_registry_is_told_of_no_device_that_has_not_run_the_pack():
    seen = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "Not measured: any GPU" in seen, "has a GPU run it? Name its kind in the classifiers"
    assert "Environment ::" not in PYPROJECT and "Operating System ::" not in PYPROJECT


def test_the_icon_and_the_banner_are_what_the_script_draws():
    assert (icon.FOLDER / "icon.svg").read_text(encoding="utf-8") == icon.icon().svg()
    for name, drawing in (("icon.png", icon.icon()), ("banner.png", icon.banner())):
        with Image.open(icon.FOLDER / name) as picture:
            kept = np.asarray(picture.convert("RGBA"), dtype=float)
        drawn = np.asarray(drawing.image(), dtype=float)
        assert kept.shape == drawn.shape
        # Releases of FreeType smooth letters differently; a shape that moved costs far more.
        assert np.abs(kept - drawn).mean() < 0.5


def test_the_registry_takes_the_sizes_of_the_pictures():
    assert (icon.icon().width, icon.icon().height) == (400, 400)
    assert icon.banner().width * 9 == icon.banner().height * 21


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.stem)
def test_an_action_runs_only_what_this_repository_has(path):
    action = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = action["jobs"]
    for job in jobs.values():
        assert set(job.get("needs", "").split()) <= set(jobs)
        called = job.get("uses", "")
        assert not called or (ROOT / called).is_file()
        for step in job.get("steps", ()):
            for command in re.findall(r"(?:python3 )?(\S+\.py|\.ci/\S+)", step.get("run", "")):
                assert (ROOT / command).is_file(), command


def test_nothing_is_published_before_it_is_checked_and_tested():
    action = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    order = {name: job.get("needs") for name, job in action["jobs"].items()}
    assert order == {"ready": None, "test": "ready", "release": "test", "publish": "release"}
    for name in ("release", "publish"):
        text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
        assert "run: python3 tools/release.py" in text


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_for_issues_is_complete(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_python_files_can_be_read_with_the_code_page_of_windows():
    for folder in ("clear_attention", "nodes", "demo", "tools", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            path.read_text(encoding="utf-8").encode("cp1252")


@pytest.mark.parametrize("file", sorted((ROOT / "web").glob("*.js")), ids=lambda file: file.name)
def test_a_script_of_the_page_touches_nothing_that_other_packs_share(file):
    script = file.read_text(encoding="utf-8")
    name = release.setting(PYPROJECT, "DisplayName").lower().replace(" ", "")
    assert re.findall(r'name: "(\w+)\.', script) == [name]
    assert not re.search(r"document\.(body|head)\.(append|prepend|insert)", script)
    assert not re.search(r"(window|globalThis)\.\w+ =", script)
