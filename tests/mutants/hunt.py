"""Run in a process of its own, with a patched package on its path: seed after seed, until one is caught.

    python hunt.py FIRST_SEED COUNT SECONDS VARIANT     prints one JSON object

Imports the package from wherever PYTHONPATH says, and nothing else of these tests.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from raftkv import sim
from raftkv.sim.shrink import kind_of
from raftkv.sim.tuning import VARIANTS
from raftkv.sim.world import SimulationStuck

_ERROR = re.compile(r"\S+ failed: (\w+)\(")
OURS = {"InvariantViolation", "CorruptData"}
"""Errors that the code raises because a check of its own found something. Any other may be an accident of the patch,
also `SyncFailed`, which wraps whatever goes wrong in writing the log."""


def outcome_of(seed: int) -> tuple[str, str]:
    """("passed" | "caught" | "own check" | "crashed", what was seen)."""
    try:
        violation = sim.run(sim.varied(sim.Plan(seed))).violation
    except SimulationStuck as error:
        return "caught", kind_of(str(error))
    except Exception as error:  # noqa: BLE001 - whatever the patch has done to the simulator
        return "crashed", f"{type(error).__name__}: {error}"
    if violation is None:
        return "passed", ""
    failed = _ERROR.match(violation.text)
    if "did not understand a peer" in violation.text:
        return "crashed", violation.text
    if failed is None:
        return "caught", kind_of(violation.text)
    text = re.sub(r"\d+", "#", violation.text[failed.start(1) :])[:90]
    return ("own check" if failed[1] in OURS else "crashed"), text


def seeds(first_seed: int, variant: str) -> Iterator[int]:
    """From `first_seed` on, and every second one from those of `variant`, if there is one of that name."""
    numbers = [at for at, each in enumerate(VARIANTS) if each is not None and each.__name__ == variant]
    of_variant = itertools.count(numbers[0], len(VARIANTS)) if numbers else iter(())
    done = set()
    for seed in itertools.count(first_seed):
        for one in (seed, next(of_variant, seed)):
            if one not in done:
                done.add(one)
                yield one


def main(first_seed: int, count: int, seconds: float, variant: str) -> dict[str, Any]:
    """Time is the processor's, so that a busy machine does not end the hunt earlier."""
    started_s = time.process_time()
    crashes: list[str] = []
    ran = 0
    for seed in itertools.islice(seeds(first_seed, variant), count):
        kind, text = outcome_of(seed)
        ran += 1
        if kind in {"caught", "own check"}:
            return _report(kind, text, seed, ran, time.process_time() - started_s)
        if kind == "crashed":
            crashes.append(text)
        if time.process_time() - started_s > seconds:
            break
    verdict, text = ("crashed", f"{len(crashes)} x {crashes[0]}") if crashes else ("survived", "")
    return _report(verdict, text, -1, ran, time.process_time() - started_s)


def _report(verdict: str, text: str, seed: int, runs: int, seconds: float) -> dict[str, Any]:
    """What `running.Result` takes, but for the name."""
    return {"verdict": verdict, "text": text, "seed": seed, "runs": runs, "seconds": seconds}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])))
