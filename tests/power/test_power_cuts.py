"""The power fails: nothing acknowledged is lost, nothing old comes back, every node starts again, and all agree.

This is the short version; `make powercuts` cuts the power a thousand times.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.power.faulty_sync import faulty
from tests.power.figures import Moment
from tests.power.world import KINDS, World


@pytest.mark.parametrize("kind", KINDS)
def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path, kind: str) -> None:
    with World(tmp_path, kind, random.Random()) as world:
        for moment in (Moment.LOAD, Moment.LOAD, Moment.START, Moment.STOP, Moment.LOAD):
            world.round(moment)
            assert not world.figures.problems, world.report()
        world.finish()
    assert not world.figures.problems, world.report()
    assert not world.figures.shortage()


@pytest.mark.parametrize("way", ["kernel", "thread"])
def test_a_disk_that_lies_about_syncs_is_found_out(tmp_path: Path, faulty_sync: Path, way: str) -> None:
    """The proof that these tests can see a loss. All files are there and whole; only the last writes are at stake."""
    variables = faulty(faulty_sync, lies=True, in_thread=way == "thread")
    settings = {"segment_size_bytes": 16 << 20, "flush_interval_bytes": 16 << 20}
    with World(tmp_path, "alone", random.Random(), variables, **settings) as world:
        for _ in range(3):
            world.start()
            world.check()
            if world.figures.problems:
                break
            world.disk.sync()
            with world.load() as load:
                load.wait_acknowledged(100)
                world.cut_and_restore(Moment.LOAD)
    lost = [problem for problem in world.figures.problems if "was acknowledged" in problem]
    assert len(lost) > 10, world.report()
