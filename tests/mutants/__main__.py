"""Plants every bug of the catalogue in turn and tells what saw it: `make mutants`, or `MUTANTS=name,… make mutants`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.catalogue import CATALOGUE, MUTANTS, VARIANT_OF
from tests.mutants.mutant import Mutant
from tests.mutants.running import Result, hunt


def main() -> int:
    options = _options()
    chosen = _chosen(options.mutants)
    started_s = time.monotonic()
    control = hunt(None, count=options.control, seconds=3600.0)
    ran = f"{control.runs} runs in {control.seconds:.0f} s"
    _say(f"the code as it is: {ran}, {control.verdict} {control.text}")
    if control.verdict != "survived":
        return 1
    with ThreadPoolExecutor(options.jobs) as threads:
        results = list(
            threads.map(
                lambda one: _tell(
                    hunt(one, count=options.seeds, seconds=options.seconds, variant=VARIANT_OF[one.name])
                ),
                chosen,
            )
        )
    _print_figures(results, time.monotonic() - started_s)
    return 0 if all(result.is_caught for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--mutants", default="", help="names, separated by commas; all by default")
    parser.add_argument("--seeds", type=int, default=600, help="the most runs for each")
    parser.add_argument("--seconds", type=float, default=240.0, help="the most time for each")
    parser.add_argument("--control", type=int, default=120, help="runs of the code as it is, before")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    return parser.parse_args()


def _chosen(names: str) -> list[Mutant]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in MUTANTS]:
        sys.exit(f"there is no mutant {unknown[0]}; there are {', '.join(MUTANTS)}")
    return [MUTANTS[name] for name in wanted] or list(MUTANTS.values())


def _tell(result: Result) -> Result:
    seed = f"seed {result.seed}" if result.seed >= 0 else ""
    cost = f"{result.runs:4} runs {result.seconds:6.1f} s"
    _say(f"{result.verdict.upper():9} {result.name:40} {cost}  {seed:8} {result.text}")
    return result


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _print_figures(results: list[Result], seconds: float) -> None:
    by_name = {result.name: result for result in results}
    _say()
    for subject, group in CATALOGUE.items():
        ran = [by_name[one.name] for one in group if one.name in by_name]
        if ran:
            _say(f"{subject:20} {sum(result.is_caught for result in ran)} of {len(ran)}")
    for verdict in ("caught", "own check", "crashed", "survived"):
        names = [result.name for result in results if result.verdict == verdict]
        shown = f": {', '.join(names)}" if verdict in {"crashed", "survived"} and names else ""
        _say(f"{verdict:20} {len(names)}{shown}")
    _say(f"{len(results)} mutants in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
