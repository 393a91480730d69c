"""`python -m bench`: everything, or the parts that are named. `--quick` for a look of a few minutes."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

from bench import durability, failover, scale, throughput
from bench.processes import BenchError
from bench.report import Report

PARTS = ("durability", "writes", "reads", "failover", "scale")
HERE = Path(__file__).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 256], help="for writes")
    parser.add_argument("--rounds", type=int, help="turns of each system (3; quick: 1)")
    parser.add_argument("--seconds", type=int, help="length of a turn (8; quick: 4)")
    parser.add_argument("--keys", type=int, help="distinct keys (1,000,000; quick: 100,000)")
    parser.add_argument("--tries", type=int, help="fail-overs (20; quick: 5)")
    parser.add_argument("--quick", action="store_true", help="fewer of everything; the figures only hint")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "latest.json", help="where to keep them")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md too")
    parser.add_argument("--directory", type=Path, help="where the data goes (default: a new one in bench/results)")
    parser.add_argument("--keep", action="store_true", help="leave data and logs there")
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"no part is called {part}; choose from {', '.join(PARTS)}")
    return arguments


def _plan(arguments: argparse.Namespace) -> throughput.Plan:
    quick = throughput.Plan(rounds=1, duration_s=4, key_count=100_000)
    plan = quick if arguments.quick else throughput.Plan()
    given = {
        "connections": arguments.connections,
        "rounds": arguments.rounds,
        "duration_s": arguments.seconds,
        "key_count": arguments.keys,
    }
    return dataclasses.replace(plan, **{name: value for name, value in given.items() if value})


def _check_tools(parts: list[str]) -> None:
    """Before anything is started."""
    needed = {
        "wrk": {"writes", "reads", "scale"},
        "etcd": {"writes", "reads"},
        "h2load": {"writes", "reads"},
        "cc": {"writes", "reads"},
    }
    missing = [tool for tool, users in needed.items() if users.intersection(parts) and shutil.which(tool) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}. On Debian or Ubuntu: make system-packages")


def _run(parts: list[str], plan: throughput.Plan, directory: Path, tries: int, report: Report) -> None:
    if "durability" in parts:
        durability.measure(directory, report)
    if "writes" in parts:
        throughput.measure_writes(directory, plan, report)
    if "reads" in parts:
        throughput.measure_reads(directory, plan, report)
    if "failover" in parts:
        failover.measure(directory, report, tries)
    if "scale" in parts:
        scale.measure(directory, report, plan.key_count)


def main() -> int:
    """0 when every target was met, 1 when one was missed, 2 when the bench could not run."""
    arguments = _arguments()
    report = Report()
    if arguments.directory:
        arguments.directory.mkdir(parents=True, exist_ok=True)
    # Beside the results by default: the system's folder for temporary files may be memory, where a sync costs nothing.
    (HERE / "results").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="data-", dir=arguments.directory or HERE / "results"))
    tries = arguments.tries or (5 if arguments.quick else 20)
    parts = arguments.parts or list(PARTS)
    try:
        _check_tools(parts)
        _run(parts, _plan(arguments), directory, tries, report)
    except BenchError as problem:
        if report.has_rows:
            report.show()
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    finally:
        if arguments.keep:
            report.progress(f"data and logs are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    report.show()
    report.save(arguments.results)
    if arguments.readme:
        report.write_into(HERE / "README.md")
    report.progress(f"results: {arguments.results} and {arguments.results.with_suffix('.md').name}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
