"""The fault suite for a minute, as every run of the tests has it; `make soak` runs it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.node import PROGRAM
from tests.soak.run import Options, run

SEED = 62
"""Its faults are short, so that every kind comes round in the time."""
SECONDS = 45  # or a third longer, on a machine that is busy with other things


@pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is missing: run make install")
def test_a_cluster_under_all_faults_at_once_stays_linearizable_and_loses_nothing(tmp_path: Path) -> None:
    report = run(Options(SEED, SECONDS, 3, tmp_path / "soak"), say=lambda _: None)

    assert report.problems == [], "\n\n".join(report.problems)
