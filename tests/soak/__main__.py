"""`python -m tests.soak`: a long run of the fault suite; `make soak` calls it."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.ports import release_ports
from tests.soak import plan
from tests.soak.namespaces import enter
from tests.soak.run import Options, run

INSIDE = "SOAK_INSIDE"
"""Set in a process that is in a network of its own already."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the plan; random when not given")
    parser.add_argument("--seconds", type=float, default=600, help="how long faults are made")
    parser.add_argument("--nodes", type=int, choices=(3, 4, 5), help="follows from the seed when not given")
    parser.add_argument("--namespaces", action="store_true", help="no proxy but the kernel's network; as root")
    parser.add_argument("--directory", type=Path, help="kept, whatever comes out; else kept only after a failure")
    parser.add_argument("--plan", action="store_true", help="show how the plan begins, and do nothing")
    arguments = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    if arguments.plan:
        _say(plan.shown(seed, 20))
        return 0
    if arguments.namespaces and not os.environ.get(INSIDE):
        os.environ[INSIDE] = "1"
        enter(["-m", "tests.soak", *sys.argv[1:], f"--seed={seed}"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # as Ctrl-C: no node may outlive this
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="raftkv-soak-"))
    options = Options(
        seed, arguments.seconds, arguments.nodes or plan.node_count(seed), directory, arguments.namespaces
    )
    _say(f"{options.node_count} nodes in {directory}; the same plan again: {options.command}")
    report = run(options, _say)
    release_ports()
    for name, count in report.figures.items():
        _say(f"{count:10}  {name}")
    for problem in report.problems:
        _say(problem)
    _say("FAILED" if report.problems else "all is well")
    if not report.problems and arguments.directory is None:
        shutil.rmtree(directory)
    return 1 if report.problems else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
