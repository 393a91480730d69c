"""`raftkv inspect`: what a stopped node's data directory holds, and whether every checksum is right."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from raftkv.cli.output import JsonOption, console, notes, print_json, print_line
from raftkv.errors import CorruptData, StorageError

if TYPE_CHECKING:
    from raftkv.storage import LogSummary, StoppedDirectory


def inspect(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A node's data directory.", show_default=False)],
    records: Annotated[bool, typer.Option("--records", help="List every record of the log too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a stopped node has on disk, and verify all of it. Changes nothing.

    Exits 7 when anything is damaged, and when the directory is in use or is none of raftkv's. A write that a crash cut
    short is not damage: it was never acknowledged, and the next start removes it.
    """
    from raftkv.storage import StoppedDirectory

    started_seconds = time.monotonic()
    problems: list[str] = []
    with StoppedDirectory.open(directory) as stopped, notes().status("reading ..."):
        report: dict[str, Any] = {"identity": _identity(stopped)}
        report["log"] = _guarded("log", problems, lambda: _log(stopped.log()))
        report["records"] = _records(stopped, problems, is_listing=records and not as_json)
        report["state"] = _guarded("state", problems, lambda: _state(stopped))
    report["problems"] = problems
    report["seconds"] = round(time.monotonic() - started_seconds, 3)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if problems:
        raise CorruptData(str(directory), -1, f"{len(problems)} problem(s) found; this node will not start")


def _guarded(part: str, problems: list[str], read: Any) -> dict[str, Any]:
    """What `read` returns; the error of a damaged part joins the problems, and the other parts are still read."""
    try:
        return dict(read())
    except (StorageError, OSError) as error:
        problems.append(f"{part}: {error}")
        return {}


def _identity(stopped: StoppedDirectory) -> dict[str, Any]:
    identity = stopped.identity
    return {
        "node_id": identity.node_id,
        "cluster_id": f"{identity.cluster_id:016x}",
        "member_id": f"{identity.member_id:016x}",
        "format": identity.format_version,
        "generation": identity.generation,
    }


def _log(log: LogSummary) -> dict[str, Any]:
    configuration = log.base.configuration
    return {
        "entries": f"{log.first_index} to {log.last_index}" if log.last_index >= log.first_index else "none",
        "last_term": log.last_term,
        "current_term": log.hard_state.current_term,
        "voted_for": f"{log.hard_state.voted_for:016x}" if log.hard_state.voted_for else "nobody",
        "cut_up_to": f"{log.base.last_index} of term {log.base.last_term}",
        "voters_at_the_cut": ", ".join(member.node_id for member in configuration.voters) or "none",
        "segments": log.segment_count,
        "unfinished_write": f"{log.torn_bytes} bytes" if log.torn_bytes else "none",
    }


def _records(stopped: StoppedDirectory, problems: list[str], is_listing: bool) -> dict[str, int]:
    """How many records of each type; damage that replaying the log did not reach joins the problems."""
    from raftkv.storage import Verdict

    counts: Counter[str] = Counter()
    for record in stopped.records():
        counts[record.type.lower() or record.verdict.value] += 1
        if is_listing:
            kind = f"{record.type or '-':<11} {record.verdict:<8}"
            print_line(f"{record.path.name} {record.offset:>10} {record.size_bytes:>9}  {kind} {record.detail}")
        place = f"{record.path} at offset {record.offset}"
        if record.verdict in {Verdict.CORRUPT, Verdict.FOREIGN} and not any(
            str(record.path) in text for text in problems
        ):
            problems.append(f"log: {place}: {record.detail}")
    counts.pop(Verdict.FREE.value, None)
    return dict(sorted(counts.items()))


def _state(stopped: StoppedDirectory) -> dict[str, Any]:
    from raftkv.kv import KeyValueMachine

    with closing(KeyValueMachine(stopped.state())) as machine:
        keys = sum(1 for _ in machine.scan(b"", None))
        return {
            "applied_up_to": f"{machine.last_applied} of term {machine.last_applied_term}",
            "revision": machine.revision,
            "compacted_up_to": machine.compact_revision or "nothing",
            "keys": keys,
            "digest": machine.state_hash(),
        }


def _print(report: dict[str, Any]) -> None:
    out = console()
    for part in ("identity", "log", "records", "state"):
        table = Table(title=part, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for name, value in report[part].items():
            table.add_row(name.replace("_", " "), str(value))
        out.print(table if report[part] else f"{part}\n  could not be read", highlight=False)
    for problem in report["problems"]:
        out.print(problem, style="bold red", markup=False, highlight=False)
    if not report["problems"]:
        out.print(f"Every checksum is right ({report['seconds']:.1f} s).", style="green", highlight=False)
