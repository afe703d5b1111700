"""Refuse to publish what is not ready, and name why; print a release's part of the changelog.

``python3 tools/release.py`` checks; ``--tag v0.1.0`` compares a tag, too; ``--notes`` prints the
changelog; ``--repository https://github.com/<owner>/<name>`` enters the repository's address into
``pyproject.toml``, and every other address that follows from it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT, CHANGELOG = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
PLACEHOLDER = "https://github.com/OWNER/clear-attention"
BRANCH = "main"
ADDRESS = re.compile(r"https://github\.com/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)")


def setting(pyproject: str, key: str) -> str:
    """Read a line ``key = "value"``; Python 3.10 has no reader of TOML."""
    found = re.search(rf'^{re.escape(key)} = "(.*?)"', pyproject, re.MULTILINE)
    if found is None:
        raise SystemExit(f'pyproject.toml must have a line {key} = "...", it has none.')
    return found[1]


def addresses(repository: str) -> dict[str, str]:
    """Derive every address in ``pyproject.toml`` from the repository's."""
    found = ADDRESS.fullmatch(repository)
    if found is None:
        raise SystemExit(
            f"The repository must be https://github.com/<owner>/<name>, got {repository!r}."
        )
    files = f"https://raw.githubusercontent.com/{found['owner']}/{found['name']}/{BRANCH}"
    return {
        "Repository": repository,
        "Documentation": f"{repository}#readme",
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/{BRANCH}/CHANGELOG.md",
        "Icon": f"{files}/docs/icon.png",
        "Banner": f"{files}/docs/banner.png",
    }


def with_repository(pyproject: str, repository: str) -> str:
    """Enter a repository's address, and all that follow from it, into the text of the file."""
    for key, address in addresses(repository).items():
        pyproject = re.sub(
            rf'(?m)^{key} = ".*?"', lambda _, k=key, a=address: f'{k} = "{a}"', pyproject
        )
    return pyproject


def differing(pyproject: str) -> Iterator[str]:
    """Yield a sentence for each address that does not follow from the repository's."""
    for key, address in addresses(setting(pyproject, "Repository")).items():
        if (got := setting(pyproject, key)) != address:
            yield f"{key} in pyproject.toml must be {address!r}, got {got!r}."


def section(changelog: str, version: str) -> tuple[str, str]:
    """Return the date and the text of a version's section of the changelog."""
    heading = re.search(rf"(?m)^## {re.escape(version)} - (\S+)\n", changelog)
    if heading is None:
        raise SystemExit(f'CHANGELOG.md must have a heading "## {version} - <date>", it has none.')
    text = changelog[heading.end() :]
    return heading[1], re.split(r"(?m)^## ", text)[0].strip()


def faults(pyproject: str, changelog: str, tag: str | None = None) -> Iterator[str]:
    """Yield a sentence for each reason against a release."""
    if setting(pyproject, "Repository") == PLACEHOLDER:
        yield (
            f"Repository in pyproject.toml is still the placeholder {PLACEHOLDER!r}: enter the "
            "address with python3 tools/release.py --repository https://github.com/<owner>/<name>."
        )
    yield from differing(pyproject)
    version = setting(pyproject, "version")
    date, text = section(changelog, version)
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        yield f"CHANGELOG.md must give the date of {version} as 2026-12-31, got {date!r}."
    if not text:
        yield f"CHANGELOG.md must say what {version} changes, its section is empty."
    if tag is not None and tag != f"v{version}":
        yield f"The tag must be 'v{version}', as in pyproject.toml, got {tag!r}."


def main(arguments: list[str]) -> int:
    """Check, print or enter; return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tag", help="the tag that is to be released, such as v0.1.0")
    parser.add_argument("--notes", action="store_true", help="print the version's changelog")
    parser.add_argument(
        "--repository", help="enter this address, https://github.com/<owner>/<name>"
    )
    options = parser.parse_args(arguments)
    pyproject = PYPROJECT.read_text(encoding="utf-8")
    changelog = CHANGELOG.read_text(encoding="utf-8")
    if options.repository:
        PYPROJECT.write_text(with_repository(pyproject, options.repository), encoding="utf-8")
        return 0
    if options.notes:
        print(section(changelog, setting(pyproject, "version"))[1])
        return 0
    found = list(faults(pyproject, changelog, options.tag))
    print("\n".join(found) or f"Ready: {setting(pyproject, 'version')}.")
    publisher = setting(pyproject, "PublisherId")
    print(f"Publishes as {publisher!r}: REGISTRY_ACCESS_TOKEN must be a token of that publisher.")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
