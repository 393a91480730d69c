"""What the run found: rows with a target and a verdict, shown as a table and kept as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.sample import Sample

_RESULTS_BEGIN, _RESULTS_END = "<!-- results -->", "<!-- end of results -->"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` is ours to theirs; `target` is text and `is_met` None where there is no target."""

    name: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    target: str = ""
    is_met: bool | None = None

    @classmethod
    def more(cls, name: str, ours: Sample, theirs: Sample, target: float | None) -> Row:
        """Requests a second: at least `target` times theirs."""
        ratio = ours.requests_per_s / theirs.requests_per_s
        return cls(
            name,
            f"{ours.requests_per_s:,.0f}  ({ours.cpu_us:.0f} µs CPU each)",
            f"{theirs.requests_per_s:,.0f}  ({theirs.cpu_us:.0f} µs CPU each)",
            ratio,
            f"≥ {target:g} ×" if target else "",
            ratio >= target and ours.error_count == 0 if target else None,
        )

    @classmethod
    def p50(cls, name: str, ours: Sample, theirs: Sample, target: float | None) -> Row:
        return cls._latency(name, ours.p50_ms, theirs.p50_ms, target)

    @classmethod
    def p99(cls, name: str, ours: Sample, theirs: Sample, target: float | None) -> Row:
        return cls._latency(name, ours.p99_ms, theirs.p99_ms, target)

    @classmethod
    def _latency(cls, name: str, ours_ms: float, theirs_ms: float, target: float | None) -> Row:
        ratio = ours_ms / theirs_ms
        met = ratio <= target if target else None
        return cls(name, f"{ours_ms:.2f} ms", f"{theirs_ms:.2f} ms", ratio, f"≤ {target:g} ×" if target else "", met)

    @classmethod
    def at_most(cls, name: str, value: float, limit: float, unit: str) -> Row:
        """A figure of ours alone, with a ceiling."""
        return cls(name, f"{value:.2f} {unit}", target=f"≤ {limit:g} {unit}", is_met=value <= limit)


class Report:
    def __init__(self) -> None:
        self.console = Console() if sys.stdout.isatty() else Console(width=140)
        self._rows: list[Row] = []
        self._rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
        self._notes: list[str] = []
        self._started = dt.datetime.now(dt.UTC)

    def progress(self, text: str) -> None:
        self.console.print(f"[dim]{dt.datetime.now(dt.UTC):%H:%M:%S}[/dim] {text}", highlight=False)

    def add(self, row: Row) -> None:
        self._rows.append(row)

    def note(self, text: str) -> None:
        self._notes.append(text)
        self.progress(text)

    def keep(self, title: str, system: str, samples: Sequence[Sample]) -> None:
        """Every round, for the JSON file."""
        self._rounds.setdefault(title, {})[system] = [dataclasses.asdict(sample) for sample in samples]

    @property
    def has_rows(self) -> bool:
        return bool(self._rows)

    @property
    def missed(self) -> list[Row]:
        return [row for row in self._rows if row.is_met is False]

    def show(self) -> None:
        table = Table(title="raftkv and etcd, three nodes each, in turns on one machine")
        table.add_column("figure")
        for heading in ("raftkv", "etcd", "ratio", "target"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for row in self._rows:
            mark = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[row.is_met]
            table.add_row(row.name, row.ours, row.theirs, _ratio(row), row.target, mark)
        self.console.print(table)
        for text in self._notes:
            self.console.print(f"note: {text}", highlight=False)

    def save(self, path: Path) -> None:
        """JSON with the machine, every row and every round; a Markdown table beside it."""
        facts = {
            "started": self._started.isoformat(timespec="seconds"),
            "machine": machine(),
            "rows": [dataclasses.asdict(row) for row in self._rows],
            "rounds": self._rounds,
            "notes": self._notes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        path.with_suffix(".md").write_text(self._markdown())

    def write_into(self, page: Path) -> None:
        """Put the table between the two marks of a Markdown page."""
        before, _, rest = page.read_text().partition(_RESULTS_BEGIN)
        _, _, after = rest.partition(_RESULTS_END)
        where = machine()
        head = (
            f"{self._started:%Y-%m-%d}, {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, "
            f"Linux {where['kernel']}, Python {where['python']}, {where['etcd']}. CPU is the processor time of "
            "all three nodes a request.\n\n"
        )
        notes = "".join(f"- {text}\n" for text in self._notes)
        parts = (
            before,
            _RESULTS_BEGIN,
            "\n",
            head,
            self._markdown(),
            "\n" if notes else "",
            notes,
            _RESULTS_END,
            after,
        )
        page.write_text("".join(parts))

    def _markdown(self) -> str:
        lines = ["| figure | raftkv | etcd | ratio | target | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
        for row in self._rows:
            mark = {True: "met", False: "**missed**", None: ""}[row.is_met]
            lines.append(f"| {row.name} | {row.ours} | {row.theirs} | {_ratio(row)} | {row.target} | {mark} |")
        return "\n".join(lines) + "\n"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}"


def machine() -> dict[str, str]:
    """What the figures depend on."""
    models = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "processor": ", ".join(sorted(models)),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{int(memory) / 2**20:.0f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "etcd": _first_line(["etcd", "--version"]),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _first_line(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout.partition("\n")[0]
    except OSError:
        return "not installed"
