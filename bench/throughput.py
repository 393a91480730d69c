"""Writes and reads: both systems run all the time, and take turns under load.

Both are filled with the same keys first. A turn starts when the other system's leftovers (compaction,
flushes) have died down. All load goes to the leader, for both systems.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.etcd import EtcdCluster
from bench.processes import Child, cpu_meter, settle
from bench.raftkv_nodes import RaftkvCluster
from bench.report import Report, Row
from bench.sample import Sample, median, spread_percent

WRITE_TARGETS = {16: 2.0, 64: 3.0, 256: 3.0}
P50_TARGET_AT_1 = 0.7
READ_TARGETS = {"local": 4.0, "linearizable": 3.0}


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `key_count` keys, `duration_s` a turn, `rounds` turns of each system."""

    connections: Sequence[int] = (1, 16, 64, 256)
    rounds: int = 3
    duration_s: int = 8
    key_count: int = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Both systems, filled alike."""

    raftkv: RaftkvCluster
    etcd: EtcdCluster

    @property
    def children(self) -> list[Child]:
        return self.raftkv.children + self.etcd.children

    def in_turns(
        self, title: str, plan: Plan, report: Report, ours: Callable[[], Sample], theirs: Callable[[], Sample]
    ) -> tuple[Sample, Sample]:
        """The medians of both, with every round kept in the report."""
        samples: dict[str, list[Sample]] = {"raftkv": [], "etcd": []}
        for number in range(plan.rounds):
            for name, children, run in (
                ("etcd", self.etcd.children, theirs),
                ("raftkv", self.raftkv.children, ours),
            ):
                settle(self.children)
                with cpu_meter(children) as used_s:
                    sample = run()
                    turn_s = plan.duration_s + 1  # with the warm-up, at about the same speed
                    sample = dataclasses.replace(sample, cpu_us=1e6 * used_s() / (sample.requests_per_s * turn_s))
                samples[name].append(sample)
                report.progress(f"{title}, round {number + 1}/{plan.rounds}, {name}: {sample.requests_per_s:,.0f}/s")
        for name, all_rounds in samples.items():
            report.keep(title, name, all_rounds)
            spread = spread_percent([s.requests_per_s for s in all_rounds])
            if spread > 30:
                report.note(f"{title}: {name}'s rounds differ by {spread:.0f} %; the machine was not quiet.")
        return median(samples["raftkv"]), median(samples["etcd"])


def open_pair(directory: Path, key_count: int, report: Report) -> Pair:
    """Start and fill both; the caller stops them."""
    etcd = EtcdCluster(directory / "etcd")
    try:
        raftkv = RaftkvCluster(directory / "raftkv")
    except BaseException:
        etcd.stop()
        raise
    try:
        report.progress(f"filling etcd with {key_count:,} keys")
        etcd.fill(key_count)
        report.progress(f"filling raftkv with {key_count:,} keys")
        raftkv.fill(key_count)
    except BaseException:
        etcd.stop()
        raftkv.stop()
        raise
    return Pair(raftkv, etcd)


def measure_writes(pair: Pair, plan: Plan, report: Report) -> None:
    for connection_count in plan.connections:
        title = f"writes, {connection_count} connections"

        def ours(count: int = connection_count) -> Sample:
            return pair.raftkv.writes(count, plan.duration_s, plan.key_count)

        def theirs(count: int = connection_count) -> Sample:
            return pair.etcd.writes(count, plan.duration_s)

        mine, other = pair.in_turns(title, plan, report, ours, theirs)
        report.add(Row.more(f"{title}: writes/s", mine, other, WRITE_TARGETS.get(connection_count)))
        report.add(Row.p50(f"{title}: p50", mine, other, P50_TARGET_AT_1 if connection_count == 1 else None))
        report.add(Row.p99(f"{title}: p99", mine, other, 1.0 if connection_count == 64 else None))


def measure_reads(pair: Pair, plan: Plan, report: Report, connection_count: int = 64) -> None:
    for level, target in READ_TARGETS.items():
        is_linearizable = level == "linearizable"
        title = f"{level} reads, {connection_count} connections"

        def ours(strong: bool = is_linearizable) -> Sample:
            return pair.raftkv.reads(connection_count, plan.duration_s, plan.key_count, strong)

        def theirs(strong: bool = is_linearizable) -> Sample:
            return pair.etcd.reads(connection_count, plan.duration_s, strong)

        mine, other = pair.in_turns(title, plan, report, ours, theirs)
        report.add(Row.more(f"{title}: reads/s", mine, other, target))
        report.add(Row.p50(f"{title}: p50", mine, other, None))
        report.add(Row.p99(f"{title}: p99", mine, other, None))
