"""A planted bug: what it is, where the field met it, and the change that plants it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[2] / "src" / "raftkv"


class Edit(NamedTuple):
    """In `file`, below src/raftkv, `old` stands exactly once and becomes `new`."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """`source` is a row of the field's list of real bugs, or a section of the paper or of the thesis."""

    name: str
    what: str
    source: str
    edits: tuple[Edit, ...]
    seed: int | None = None
    """Of a varied plan that is known to catch it quickly, for the short run in the normal tests."""


def mutant(name: str, what: str, source: str, *edits: Edit, seed: int | None = None) -> Mutant:
    return Mutant(name, what, source, edits, seed)


def problems(one: Mutant) -> list[str]:
    """Why its edits no longer fit; empty when they do."""
    found = []
    for edit in one.edits:
        count = (SOURCE / edit.file).read_text(encoding="utf-8").count(edit.old)
        if count != 1:
            found.append(f"{one.name}: the old text stands {count} times in {edit.file}: {edit.old!r}")
    return found


def plant(one: Mutant | None, directory: Path) -> None:
    """A copy of the package at `directory`/raftkv with the bug in it; None plants nothing."""
    shutil.copytree(SOURCE, directory / "raftkv", ignore=shutil.ignore_patterns("__pycache__"))
    for edit in one.edits if one is not None else ():
        path = directory / "raftkv" / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(problems(one) if one is not None else edit)
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
