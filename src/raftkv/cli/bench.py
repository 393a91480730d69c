"""`raftkv bench`: how fast a running cluster answers."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from raftkv.cli.connection import DEFAULT_SERVER, ServerOption
from raftkv.cli.output import JsonOption, console, notes, print_json
from raftkv.errors import InvalidInput, Unavailable
from raftkv.runtime import split_address
from raftkv.types import Consistency

if TYPE_CHECKING:
    from raftkv.cli.load import LoadRun

_MIX = re.compile(r"(\d{1,3})/(\d{1,3})")
_QUANTILES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))


def bench(
    connections: Annotated[
        int,
        typer.Option("--connections", "-c", min=1, max=10_000, help="Connections, one request at a time each."),
    ] = 64,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86_400, help="How long to measure.")] = 10.0,
    warmup_seconds: Annotated[
        float, typer.Option("--warmup-seconds", min=0, max=3600, help="How long to run before measuring.")
    ] = 1.0,
    keys: Annotated[
        int, typer.Option("--keys", min=1, max=100_000_000, help="How many different keys; each request picks one.")
    ] = 100_000,
    value_bytes: Annotated[
        int, typer.Option("--value-bytes", min=2, max=1 << 26, help="The length of a value as JSON.")
    ] = 128,
    mix: Annotated[
        str, typer.Option("--mix", metavar="WRITES/READS", help="Percent of puts and of gets; together 100.")
    ] = "100/0",
    consistency: Annotated[
        Consistency | None, typer.Option("--consistency", help="What the reads promise.", show_default=False)
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Measure a running cluster. It writes keys named bench-00000000 and so on, and leaves them there.

    Connections are spread over the servers of --server. Each sends its next request once the last is answered, so
    the rate is what this many clients get, not what the cluster could take. On one machine with the nodes, this
    program takes its share of the processors.
    """
    import uvloop

    from raftkv.cli.load import Load, LoadRun

    load = Load(
        servers=[split_server(part) for part in server.split(",") if part.strip()],
        connection_count=connections,
        key_count=keys,
        value_bytes=value_bytes,
        write_percent=_write_percent(mix),
        consistency=consistency or "",
    )
    run = LoadRun(load)
    try:
        elapsed_seconds = uvloop.run(_measure(run, warmup_seconds, seconds))
    except OSError as error:
        raise Unavailable(f"{server}: cannot connect ({error.strerror or error})") from None
    results = [_row(kind, run, elapsed_seconds) for kind in ("put", "get") if _was_used(run, kind)]
    if as_json:
        print_json(
            {"seconds": elapsed_seconds, "connections": connections, "value_bytes": value_bytes, "results": results}
        )
    else:
        console().print(_table(results, connections, value_bytes, elapsed_seconds))
    if not run.completed:
        raise Unavailable("not one request was answered with success")


def split_server(server: str) -> tuple[str, int]:
    try:
        return split_address(server.strip().removeprefix("http://").rstrip("/"))
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _write_percent(mix: str) -> float:
    matched = _MIX.fullmatch(mix)
    if not matched or int(matched[1]) + int(matched[2]) != 100:
        raise InvalidInput(f"--mix {mix!r} is not two percentages such as 20/80, which together are 100")
    return float(matched[1])


async def _measure(run: LoadRun, warmup_seconds: float, seconds: float) -> float:
    """Returns how long was really measured."""
    until = asyncio.Event()
    running = asyncio.ensure_future(run.run(until))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=notes(), transient=True) as progress:
        for phase, length in (("warming up", warmup_seconds), ("measuring", seconds)):
            run.reset()
            task = progress.add_task(phase, total=length or None, rate="")
            while (passed := time.perf_counter() - run.started_seconds) < length and not running.done():
                progress.update(task, completed=passed, rate=f"{run.completed / max(passed, 1e-9):,.0f}/s")
                await asyncio.wait((running,), timeout=min(0.2, max(length - passed, 0.001)))
            progress.remove_task(task)
    elapsed_seconds = time.perf_counter() - run.started_seconds
    until.set()
    await running
    return elapsed_seconds


def _was_used(run: LoadRun, kind: str) -> bool:
    return bool(run.tallies[kind].latencies.count or run.tallies[kind].failures)


def _row(kind: str, run: LoadRun, elapsed_seconds: float) -> dict[str, Any]:
    tally = run.tallies[kind]
    latencies = tally.latencies
    return {
        "request": kind,
        "count": latencies.count,
        "per_second": round(latencies.count / elapsed_seconds, 1),
        **{f"{name}_ms": round(latencies.quantile(fraction) * 1000, 3) for fraction, name in _QUANTILES},
        "longest_ms": round(latencies.longest_seconds * 1000, 3),
        "failures": dict(tally.failures),
    }


def _table(results: list[dict[str, Any]], connections: int, value_bytes: int, elapsed_seconds: float) -> Table:
    title = f"{connections} connections, values of {value_bytes} bytes, {elapsed_seconds:.1f} s; latencies in ms"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for heading in ("request", "done", "per s", *(name for _, name in _QUANTILES), "longest", "failures"):
        table.add_column(heading, justify="left" if heading in {"request", "failures"} else "right")
    for row in results:
        times = [f"{row[f'{name}_ms']:.2f}" for _, name in _QUANTILES]
        failures = ", ".join(f"{count} × {what}" for what, count in row["failures"].items()) or "none"
        table.add_row(
            row["request"],
            f"{row['count']:,}",
            f"{row['per_second']:,.0f}",
            *times,
            f"{row['longest_ms']:.2f}",
            failures,
        )
    return table
