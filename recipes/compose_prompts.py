"""Compose prompts.txt: what teachers paint for students to learn from.

    python recipes/compose_prompts.py

A prompt is a kind of picture with a word from each of its lists in words.ini. The lists are of this
project, so that the prompts may be used for anything. Other prompts serve as well: the more
different ones, the better.
"""

from __future__ import annotations

import random
from configparser import ConfigParser
from pathlib import Path
from string import Formatter

COUNT = 1280
TARGET = Path(__file__).with_name("prompts.txt")

WORDS = Path(__file__).with_name("words.ini")

KINDS = [
    "{person} {wearing}, {doing}, {light}",
    "{view} of {person} {wearing} in {room}",
    "{person}, {doing} in {room}, {style}",
    "{animal} in {place}, {light}",
    "{view} of {animal}, {weather}",
    "{animal}, {style} {colours}",
    "{place} {light}, {view}",
    "{place} {weather}, {style}",
    "{view} of {place} {light}, {colours}",
    "{room} {light}, {thing} on the table",
    "{room}, {style} {colours}",
    "{thing} on {material}, {light}",
    "{thing} and {thing2}, a still life, {style}",
    "the texture of {material}, {view}, {light}",
    "{written}, {light}",
    "{written} in {place}",
    "{count} {things} {arranged}, {light}",
    "{count} {things} {arranged}, {style}",
    "{person} and {animal} in {place}, {light}, {colours}",
    "a map of an island with {place} and {place2}, {style}",
]


def lists() -> dict[str, list[str]]:
    """Read the words of each list."""
    file = ConfigParser(interpolation=None)
    file.read(WORDS, encoding="utf-8")
    found = dict(file["words"])
    return {name: [" ".join(w.split()) for w in text.split("|")] for name, text in found.items()}


def compose(kind: str, words: dict[str, list[str]], draw: random.Random) -> str:
    """Fill one kind of picture with words."""
    taken: dict[str, str] = {}
    for _, name, _, _ in Formatter().parse(kind):
        if name is not None:
            choices = [w for w in words[name.rstrip("2")] if w not in taken.values()]
            taken[name] = draw.choice(choices)
    text = kind.format(**taken)
    return text.replace("{word}", draw.choice(words["word"]))


def compose_all(count: int = COUNT, seed: int = 0) -> list[str]:
    """Compose different prompts, of each kind as many as of any other."""
    draw, words = random.Random(seed), lists()
    found: dict[str, None] = {}
    while len(found) < count:
        kind = KINDS[len(found) % len(KINDS)]
        found.setdefault(compose(kind, words, draw))
    return list(found)


if __name__ == "__main__":
    TARGET.write_text("\n".join(compose_all()) + "\n", encoding="utf-8")
