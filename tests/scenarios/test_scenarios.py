"""Each `*.txt` beside this file is a story of a cluster with its trace; the core must tell it in exactly these words.

They are meant to be read. After a change of the core that alters a trace on purpose, re-record with
`pytest tests/scenarios --record` and read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.runner import parse, render, run, run_file

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    expected, happened = run_file(path)
    if request.config.getoption("--record", default=False):
        path.write_text(happened, encoding="utf-8")
        return
    assert happened.splitlines() == expected.splitlines(), f"review, then: pytest {path.parent.name} --record"


def test_there_are_scenarios() -> None:
    """A glob that finds nothing would pass."""
    assert len(SCENARIOS) >= 8


def test_a_wrong_trace_is_noticed() -> None:
    """The comparison can fail: one altered word."""
    text = SCENARIOS[0].read_text(encoding="utf-8")
    altered = text.replace("leader of term", "leader in term", 1)
    assert altered != text
    assert run(altered) == text


def test_comments_and_layout_are_kept() -> None:
    """Recording changes nothing but traces."""
    text = SCENARIOS[0].read_text(encoding="utf-8")
    assert render(parse(text)) == text
