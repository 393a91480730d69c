"""One mutant, planted and hunted in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutant import Mutant, plant

_HUNT = Path(__file__).with_name("hunt.py")


class Result(NamedTuple):
    """`verdict` is "caught", "own check" (the code's own runtime check saw it), "crashed" or "survived"."""

    name: str
    verdict: str
    text: str
    seed: int
    runs: int
    seconds: float

    @property
    def is_caught(self) -> bool:
        return self.verdict in {"caught", "own check"}


def hunt(one: Mutant | None, *, first_seed: int = 0, count: int, seconds: float, variant: str = "") -> Result:
    """None is the code as it is. Ends with the first seed that catches it, or with `count` or `seconds`."""
    with tempfile.TemporaryDirectory(prefix="raftkv-mutant-") as directory:
        plant(one, Path(directory))
        environment = {**os.environ, "PYTHONPATH": directory, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [sys.executable, str(_HUNT), str(first_seed), str(count), str(seconds), variant],
            env=environment,
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
    name = one.name if one is not None else "(none)"
    if done.returncode != 0:
        return Result(name, "crashed", done.stderr.strip().splitlines()[-1], -1, 0, 0.0)
    return Result(name, **json.loads(done.stdout))
