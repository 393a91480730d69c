"""Writes and reads: both systems run side by side, and take turns under load.

Writes of random keys begin with empty systems, once for each number of connections. Reads, and writes over what is
there, run on systems that hold every key. A turn starts when the other system's leftovers (compaction, flushes)
have died down. All load goes to the leader, for both systems.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    """What to run: `key_count` distinct keys, `duration_s` a turn, `rounds` turns of each system."""

    connections: Sequence[int] = (1, 16, 64, 256)
    rounds: int = 3
    duration_s: int = 8
    key_count: int = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Both systems, alike."""

    raftkv: RaftkvCluster
    etcd: EtcdCluster

    @classmethod
    def start(cls, directory: Path) -> Pair:
        etcd = EtcdCluster(directory / "etcd")
        try:
            return cls(RaftkvCluster(directory / "raftkv"), etcd)
        except BaseException:
            etcd.stop()
            raise

    def stop(self) -> None:
        self.raftkv.stop()
        self.etcd.stop()

    def fill(self, key_count: int, report: Report) -> None:
        report.progress(f"filling etcd with {key_count:,} keys")
        self.etcd.fill(key_count)
        report.progress(f"filling raftkv with {key_count:,} keys")
        self.raftkv.fill(key_count)

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


@contextmanager
def running_pair(directory: Path) -> Iterator[Pair]:
    """Both systems, empty, on a directory that is removed afterwards."""
    pair = Pair.start(directory)
    try:
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(directory)


def measure_writes(directory: Path, plan: Plan, report: Report) -> None:
    for count in plan.connections:
        with running_pair(directory / f"writes{count}") as pair:
            mine, other = _write_in_turns(f"writes, {count} connections", pair, count, plan, report)
        report.add(Row.more(f"writes/s, {count} connections", mine, other, WRITE_TARGETS.get(count)))
        report.add(Row.p50(f"  p50 at {count}", mine, other, P50_TARGET_AT_1 if count == 1 else None))
        report.add(Row.p99(f"  p99 at {count}", mine, other, 1.0 if count == 64 else None))


def _write_in_turns(title: str, pair: Pair, count: int, plan: Plan, report: Report) -> tuple[Sample, Sample]:
    return pair.in_turns(
        title,
        plan,
        report,
        lambda: pair.raftkv.writes(count, plan.duration_s, plan.key_count),
        lambda: pair.etcd.writes(count, plan.duration_s, plan.key_count),
    )


def measure_reads(directory: Path, plan: Plan, report: Report, count: int = 64) -> None:
    with running_pair(directory / "reads") as pair:
        pair.fill(plan.key_count, report)
        for level, target in READ_TARGETS.items():
            mine, other = _read_in_turns(level, pair, count, plan, report)
            report.add(Row.more(f"{level} reads/s, {count} connections", mine, other, target))
            report.add(Row.p50(f"  p50 at {count}", mine, other, None))
            report.add(Row.p99(f"  p99 at {count}", mine, other, None))
        mine, other = _write_in_turns(f"writes over {plan.key_count:,} keys", pair, count, plan, report)
        report.add(Row.more(f"writes/s over {plan.key_count:,} present keys, {count} connections", mine, other, None))


def _read_in_turns(level: str, pair: Pair, count: int, plan: Plan, report: Report) -> tuple[Sample, Sample]:
    is_linearizable = level == "linearizable"
    return pair.in_turns(
        f"{level} reads, {count} connections",
        plan,
        report,
        lambda: pair.raftkv.reads(count, plan.duration_s, plan.key_count, is_linearizable),
        lambda: pair.etcd.reads(count, plan.duration_s, plan.key_count, is_linearizable),
    )
