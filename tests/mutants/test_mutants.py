"""The net holds: a dozen planted bugs are caught, each by the seed known to catch it; and all still fit the code.

`make mutants` plants every one of the catalogue and takes no seed for granted.
"""

from __future__ import annotations

import collections

import pytest

from tests.mutants.catalogue import CATALOGUE, MUTANTS
from tests.mutants.mutant import Mutant, problems
from tests.mutants.running import hunt

KNOWN = [one for one in MUTANTS.values() if one.seed is not None]


def test_every_bug_can_still_be_planted() -> None:
    assert [problem for one in MUTANTS.values() for problem in problems(one)] == []


def test_names_are_unique() -> None:
    counts = collections.Counter(one.name for group in CATALOGUE.values() for one in group)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_subject_has_one_that_is_tried_here() -> None:
    assert all(any(one.seed is not None for one in group) for group in CATALOGUE.values())


def test_the_code_as_it_is_passes_the_seeds_that_catch() -> None:
    for seed in sorted({one.seed for one in KNOWN if one.seed is not None}):
        result = hunt(None, first_seed=seed, count=1, seconds=60.0)
        assert result.verdict == "survived", f"seed {seed}: {result.text}"


@pytest.mark.parametrize("one", KNOWN, ids=[one.name for one in KNOWN])
def test_is_caught(one: Mutant) -> None:
    assert one.seed is not None
    result = hunt(one, first_seed=one.seed, count=1, seconds=60.0)
    assert result.is_caught, f"{one.what}: {result.verdict} {result.text}"
