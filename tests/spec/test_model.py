"""The specification in `spec/` holds within its smallest bounds, and planted errors do not. `make model` runs all."""

from __future__ import annotations

import re

import pytest

from scripts.check_model import MODELS, PLANTED, SPEC, ToolMissing, check_model, check_planted, find_jar, find_java

TIMEOUT_S = 200.0
"""Some seconds are enough where nothing else runs."""


def _what_is_missing() -> str:
    try:
        find_java()
        find_jar()
    except ToolMissing as missing:
        return str(missing)
    return ""


needs_tlc = pytest.mark.skipif(bool(_what_is_missing()), reason=f"TLC cannot run: {_what_is_missing()}")


@needs_tlc
def test_the_smallest_model_holds() -> None:
    result = check_model("steps", timeout_s=TIMEOUT_S, MaxLog=1, MaxCommands=0, MaxDirty=2)
    assert result.is_complete, result.output
    assert result.distinct_count > 1000, "the model is empty: nothing was checked"


@needs_tlc
def test_a_vote_that_leaves_before_it_is_durable_elects_two_leaders() -> None:
    planted = next(planted for planted in PLANTED if planted.error == "vote-before-durable")
    result = check_planted(planted, timeout_s=TIMEOUT_S)
    assert result.violated == planted.invariant, result.output


def test_every_model_has_bounds_and_asks_for_every_invariant() -> None:
    asked = {model: set(re.findall(r"(?m)^    ([A-Z]\w+)$", (SPEC / f"{model}.cfg").read_text())) for model in MODELS}
    assert {model: names for model, names in asked.items() if names != asked["elections"]} == {}
    assert {"ElectionSafety", "LogMatching", "LeaderCompleteness", "StateMachineSafety"} <= asked["elections"]


def test_every_error_that_can_be_planted_is() -> None:
    """Each switch of the specification has a model that must fall with it, and no model plants what does not exist."""
    switches = set(re.findall(r'"([a-z-]+)" \\in Planted', (SPEC / "Raftkv.tla").read_text()))
    assert {planted.error for planted in PLANTED} == switches
