"""`raftkv sim`: whole clusters under faults, in virtual time, until something breaks."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raftkv.cli.output import JsonOption, notes, print_json, print_line
from raftkv.errors import InvalidInput, InvariantViolation

if TYPE_CHECKING:
    from raftkv.sim import Outcome, Plan


def sim(
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=10_000_000, help="How many runs.")] = 100,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The seed of the first one.")] = 0,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=9, help="Voters at the beginning.")] = 5,
    spares: Annotated[int, typer.Option("--spares", min=0, max=4, help="Fresh nodes that may be joined.")] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=86_400, help="Virtual time of one run, before peace is made.")
    ] = 60.0,
    faults: Annotated[
        str, typer.Option("--faults", metavar="KIND,…", help="Only these; 'list' shows all.", show_default="all kinds")
    ] = "",
    state_machine: Annotated[
        str,
        typer.Option(
            "--state-machine",
            metavar="MODULE:CLASS",
            help="Your own state machine instead of keys.",
            show_default=False,
        ),
    ] = "",
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FILE", help="Run one kept plan again.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.html", help="Draw the failing run, or a lone one.", show_default=False),
    ] = None,
    keep: Annotated[Path, typer.Option("--keep", metavar="DIR", help="Where plans that fail are kept.")] = Path(),
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, max=256, help="Processes; 0: one a processor.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Try to break raftkv, or your own state machine on it, in simulated clusters.

    Every seed is a run of its own: clients at work, faults from the seed (crashes, power cuts, partitions, pauses, slow
    and failing disks, clocks, changes of members), checks after every step, and at the end the question whether all
    that clients saw is linearizable. A run that fails is made as small as possible and kept; the command that replays
    it is printed. Exits 1 when a run failed.
    """
    from raftkv.sim import KINDS, Plan, load_plan

    if faults == "list":
        for name in KINDS:
            print_line(name)
        return
    chosen = _kinds(faults, list(KINDS))
    if replay is not None:
        plan = load_plan(replay)
        _one(plan, picture, as_json)
        return
    template = Plan(
        seed=0,
        node_count=nodes,
        spare_count=spares,
        duration_s=seconds,
        kinds=chosen,
        state_machine=state_machine,
    )
    if seeds == 1:
        _one(dataclasses.replace(template, seed=first_seed), picture, as_json)
        return
    _many(template, range(first_seed, first_seed + seeds), jobs or os.cpu_count() or 1, keep, picture, as_json)


def _kinds(text: str, known: list[str]) -> frozenset[str] | None:
    chosen = frozenset(part.strip() for part in text.split(",") if part.strip())
    if unknown := sorted(chosen - set(known)):
        raise InvalidInput(f"--faults {unknown[0]!r} is no kind of fault; there are {', '.join(known)}")
    return chosen or None


def _one(plan: Plan, picture: Path | None, as_json: bool) -> None:
    """A single run, told in full."""
    from raftkv.sim import draw, run

    started_s = time.perf_counter()
    outcome = run(plan, keeps_frames=picture is not None)
    elapsed_s = time.perf_counter() - started_s
    if picture is not None:
        picture.write_text(draw(outcome), encoding="utf-8")
        notes().print(f"Picture: {picture}", highlight=False)
    if as_json:
        print_json({**_facts(outcome), "events": [str(event) for event in outcome.events]})
    else:
        for event in outcome.events:
            print_line(str(event))
        print_line(_sentence([outcome], elapsed_s))
    _exit_on(outcome)


def _many(template: Plan, seeds: range, jobs: int, keep: Path, picture: Path | None, as_json: bool) -> None:
    """Until all have run, or one has failed."""
    outcomes: list[Outcome] = []
    started_s = time.perf_counter()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    failed: Outcome | None = None
    with Progress(*columns, console=notes(), transient=True) as progress:
        task = progress.add_task("simulating", total=len(seeds), rate="")
        for outcome in _run_all(template, seeds, jobs):
            outcomes.append(outcome)
            simulated_s = sum(each.simulated_s for each in outcomes)
            rate = simulated_s / max(time.perf_counter() - started_s, 1e-9)
            progress.update(task, advance=1, rate=f"{rate:,.0f} simulated s/s")
            if outcome.violation is not None:
                failed = outcome
                break
    elapsed_s = time.perf_counter() - started_s
    if failed is not None:
        _tell_failure(failed, keep, picture)
    if as_json:
        print_json({"runs": [_facts(outcome) for outcome in outcomes], "seconds": round(elapsed_s, 3)})
    else:
        print_line(_sentence(outcomes, elapsed_s))
    if failed is not None:
        _exit_on(failed)


def _run_all(template: Plan, seeds: range, jobs: int) -> Iterator[Outcome]:
    """In the order in which they end; processes are stopped when the caller stops asking."""
    plans = [dataclasses.replace(template, seed=seed) for seed in seeds]
    if jobs == 1:
        yield from map(run_lightly, plans)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run_lightly, plan) for plan in plans]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_lightly(plan: Plan) -> Outcome:
    """In a process of its own; what is large stays there."""
    from raftkv.sim import run

    return dataclasses.replace(run(plan), events=(), history=())


def _tell_failure(failed: Outcome, keep: Path, picture: Path | None) -> None:
    """Shrink, keep, say how to see it again."""
    from raftkv.sim import draw, run, save_plan, shrink

    out = notes()
    violation = failed.violation
    out.print(f"Seed {failed.plan.seed} fails: {violation.text if violation else ''}", highlight=False, markup=False)
    with out.status("making it smaller …"):
        small = shrink(run(failed.plan))
    path = keep / f"sim-{failed.plan.seed}.json"
    save_plan(small.plan, path)
    faults = small.plan.faults or ()
    out.print(
        f"It still fails with {len(faults)} fault(s) in {small.plan.duration_s:.1f} s. Replay it with:\n"
        f"  raftkv sim --replay {path} --picture sim-{failed.plan.seed}.html",
        highlight=False,
        markup=False,
    )
    if picture is not None:
        picture.write_text(draw(run(small.plan, keeps_frames=True)), encoding="utf-8")


def _facts(outcome: Outcome) -> dict[str, Any]:
    violation = outcome.violation
    return {
        "seed": outcome.plan.seed,
        "violation": violation.text if violation else None,
        "at_seconds": violation.at_s if violation else None,
        "digest": outcome.digest,
        "simulated_seconds": outcome.simulated_s,
        "steps": outcome.step_count,
        "faults": outcome.fault_count,
        "leaders": outcome.leader_count,
        "committed": outcome.committed_count,
        "acknowledged": outcome.acknowledged_count,
        "reads_that_found": outcome.found_count,
        "messages": outcome.frame_count,
    }


def _sentence(outcomes: list[Outcome], elapsed_s: float) -> str:
    simulated_s = sum(outcome.simulated_s for outcome in outcomes)
    failed = sum(outcome.violation is not None for outcome in outcomes)
    return (
        f"{len(outcomes):,} runs, {failed} failed: {simulated_s / 3600:,.2f} simulated hours in {elapsed_s:,.1f} s "
        f"({simulated_s / max(elapsed_s, 1e-9):,.0f} simulated s/s), "
        f"{sum(outcome.fault_count for outcome in outcomes):,} faults, "
        f"{sum(outcome.leader_count for outcome in outcomes):,} leaders, "
        f"{sum(outcome.acknowledged_count for outcome in outcomes):,} writes acknowledged"
    )


def _exit_on(outcome: Outcome) -> None:
    if outcome.violation is not None:
        raise InvariantViolation(f"seed {outcome.plan.seed}, {outcome.violation.at_s:.3f} s: {outcome.violation.text}")
