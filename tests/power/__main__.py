"""`python -m tests.power --cuts 1000`: cut the power many times, in many worlds, and say what came of it.

Each world has its own disk and settings, and lives for some tens of cuts on the same disk. When one goes wrong its
directory is kept and named; the run goes on with the next, and fails in the end.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from tests.ports import release_ports
from tests.power.disk import what_is_missing
from tests.power.faulty_sync import build_faulty_sync, faulty
from tests.power.figures import Figures
from tests.power.world import KINDS, World

_CUTS_PER_WORLD = 25
_SHARES = {"alone": 0.6, "together": 0.25, "member": 0.15}
_THREAD_SHARE, _SLOW_SHARE = 0.3, 0.5
"""Of worlds whose logs have to sync in a thread, and of those whose syncs take long."""


def main() -> int:
    arguments = _arguments()
    if missing := what_is_missing():
        _say(f"the power cannot be cut here: {missing}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and processes go, as with Ctrl-C
    dice = random.Random(arguments.seed)
    directory = Path(tempfile.mkdtemp(prefix="powercuts-", dir=arguments.directory))
    library = build_faulty_sync(directory)
    total, started_s, number = Figures(), time.monotonic(), 0
    _say(f"seed {arguments.seed}, in {directory}")
    while total.cut_count < arguments.cuts:
        number += 1
        kind = dice.choices(list(_SHARES), list(_SHARES.values()))[0]
        world = World(directory / f"world{number}", kind, dice, _variables(library, dice))
        _live(world, min(_CUTS_PER_WORLD, arguments.cuts - total.cut_count))
        total.add(world.figures)
        rate = total.cut_count / (time.monotonic() - started_s)
        _say(f"{total.cut_count} of {arguments.cuts} cuts, {rate:.2f}/s. World {number}: {world.description}")
        _say(f"    {world.figures}")
        for problem in world.figures.problems:
            _say(f"    PROBLEM: {problem}")
        if not world.figures.problems:
            shutil.rmtree(directory / f"world{number}")
    _say(f"\n{total}\n{total.cut_count / (time.monotonic() - started_s):.2f} cuts a second; kinds: {_by_kind(total)}")
    if shortage := total.shortage():
        _say(f"FAILED: {shortage}")
    if total.problems:
        _say(f"FAILED: what went wrong lies in {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if total.problems or shortage else 0


def _variables(library: Path | None, dice: random.Random) -> Mapping[str, str]:
    in_thread, is_slow = dice.random() < _THREAD_SHARE, dice.random() < _SLOW_SHARE
    if library is None or not (in_thread or is_slow):
        return {}
    return faulty(library, in_thread=in_thread, delay_ms=5 if is_slow else 0)


def _live(world: World, cut_count: int) -> None:
    """A whole life of a world; what is wrong with it is in its figures."""
    try:
        with world:
            while world.figures.cut_count < cut_count and not world.figures.problems:
                world.round()
            if not world.figures.problems:
                world.finish()
    except Exception:  # noqa: BLE001 -- whatever it was, it is reported, and other worlds are worth trying
        world.figures.problems.append(traceback.format_exc())
    release_ports()


def _by_kind(figures: Figures) -> str:
    return ", ".join(f"{kind} {sum(n for (of, _), n in figures.cuts.items() if of == kind)}" for kind in KINDS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000, help="how many (default: 1000, about 20 minutes)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of the choices")
    parser.add_argument("--directory", type=Path, help="where the disks go (default: the system's for such)")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
