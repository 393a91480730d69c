"""Prometheus metrics of a node: read from its state at each scrape, so that the hot path counts nothing twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from raftkv.runtime.watching.histogram import Histogram
from raftkv.types import Role

if TYPE_CHECKING:
    from raftkv.runtime.node import Node


_log = logging.getLogger("raftkv.log")

SLOW_SYNC_S = 0.25
"""A good disk takes milliseconds. This is more than half of the default election timeout: elections are near."""
SLOW_SYNC_PERIOD_S = 10.0


class LogMetrics:
    """What the log tells of each burst; and, by name, that the disk is slow, at most once in `SLOW_SYNC_PERIOD_S`."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._quiet_until_s = 0.0
        self._slow_count = 0
        """Since the last warning."""
        self.sync = Histogram()
        self.bytes_count = 0
        self.record_count = 0
        self.longest_sync_s = 0.0

    def observe_sync(self, seconds: float, bytes_count: int, record_count: int) -> None:
        self.sync.observe(seconds)
        self.bytes_count += bytes_count
        self.record_count += record_count
        self.longest_sync_s = max(self.longest_sync_s, seconds)
        if seconds >= SLOW_SYNC_S:
            self._note_slow(seconds, bytes_count)

    def _note_slow(self, seconds: float, bytes_count: int) -> None:
        self._slow_count += 1
        now_s = self._now()
        if now_s >= self._quiet_until_s:
            facts = {"seconds": round(seconds, 3), "bytes": bytes_count, "slow_count": self._slow_count}
            _log.warning("the disk is slow: this long for one write and sync of the log", extra=facts)
            self._quiet_until_s = now_s + SLOW_SYNC_PERIOD_S
            self._slow_count = 0


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


class NodeCollector(Collector):
    """All of a node but HTTP, which registers its own."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> list[Metric]:
        return []  # the node may not be open yet when this is registered

    def collect(self) -> Iterator[Metric]:
        yield from self._consensus()
        yield from self._peers()
        yield from self._log()
        yield from self._state()
        yield from self._loop()

    def _consensus(self) -> Iterator[Metric]:
        replica = self._node.replica
        status = replica.raft.status()
        role = GaugeMetricFamily("raftkv_raft_role", "1 for the role that this node has now", labels=["role"])
        for name in Role:
            role.add_metric([name.value], float(status.role is name))
        yield role
        yield _gauge("raftkv_raft_term", "current_term", status.current_term)
        yield _gauge("raftkv_raft_has_leader", "1 while a leader is known", float(bool(status.leader)))
        yield _gauge("raftkv_raft_last_index", "Index of the last entry in the log", status.last_index)
        yield _gauge("raftkv_raft_commit_index", "Highest index known to be committed", status.commit_index)
        yield _gauge("raftkv_raft_applied_index", "Highest index applied to the state", replica.machine.last_applied)
        yield _counter(
            "raftkv_raft_leader_changes", "Changes of the known leader since the start", replica.leader_changes_count
        )
        yield _counter("raftkv_raft_ignored_messages", "Raft messages that made no sense", status.ignored_count)
        yield _gauge("raftkv_raft_voters", "Voters in the configuration in force", len(status.configuration.voters))
        yield _gauge(
            "raftkv_raft_learners", "Learners in the configuration in force", len(status.configuration.learners)
        )
        yield _gauge(
            "raftkv_proposals_pending", "Writes on this node that have no answer yet", replica.proposals.pending_count
        )
        yield _gauge(
            "raftkv_forwarded_pending", "Writes that wait for the leader's answer", replica.forwarding.pending_count
        )
        yield _gauge(
            "raftkv_reads_pending", "Reads that wait for the leader's confirmation", replica.reads.pending_count
        )
        yield _gauge(
            "raftkv_node_ready", "1 once reads are confirmed and a leader is known", float(self._node.is_ready)
        )

    def _peers(self) -> Iterator[Metric]:
        node = self._node
        status = node.replica.raft.status()
        members = status.configuration.members()
        labels = ["peer"]
        lag = GaugeMetricFamily(
            "raftkv_peer_lag_entries", "Entries that a follower lacks (on the leader)", labels=labels
        )
        for member_id, progress in status.progress.items():
            if member_id in members and member_id != node.replica.own.member_id:
                lag.add_metric([members[member_id].node_id], status.last_index - progress.match_index)
        yield lag
        connected = GaugeMetricFamily("raftkv_peer_connected", "1 while connected to the peer", labels=labels)
        sent = CounterMetricFamily("raftkv_peer_sent_bytes", "Bytes sent to the peer", labels=labels)
        received = CounterMetricFamily("raftkv_peer_received_bytes", "Bytes received from the peer", labels=labels)
        dropped = CounterMetricFamily("raftkv_peer_dropped_frames", "Frames that could not be queued", labels=labels)
        for member_id, stats in node.transport.stats.peers.items():
            name = [members[member_id].node_id if member_id in members else f"{member_id:x}"]
            connected.add_metric(name, float(stats.is_connected))
            sent.add_metric(name, stats.bytes_sent)
            received.add_metric(name, stats.bytes_received)
            dropped.add_metric(name, stats.frames_dropped)
        yield from (connected, sent, received, dropped)
        refused = CounterMetricFamily(
            "raftkv_peer_refused_connections", "Connections refused or ended", labels=["reason"]
        )
        for reason, count in node.transport.stats.refused.items():
            refused.add_metric([reason], count)
        yield refused

    def _log(self) -> Iterator[Metric]:
        log = self._node.log_metrics
        sync = HistogramMetricFamily(
            "raftkv_log_sync_seconds",
            "Time of one write and fdatasync of the log, until the event loop learns of its end: a delay of the loop "
            "counts too",
        )
        log.sync.add_to(sync, [])
        yield sync
        yield _gauge("raftkv_log_sync_longest_seconds", "The longest of them since the start", log.longest_sync_s)
        yield _counter("raftkv_log_written_bytes", "Bytes written to the log", log.bytes_count)
        yield _counter("raftkv_log_written_records", "Records written to the log", log.record_count)
        yield _gauge("raftkv_log_base_index", "The log is cut up to here", self._node.replica.log.base.last_index)

    def _state(self) -> Iterator[Metric]:
        node = self._node
        replica = node.replica
        yield _gauge("raftkv_revision", "The newest revision of the store", replica.machine.revision)
        apply = HistogramMetricFamily(
            "raftkv_apply_seconds",
            "Time to apply a group of committed entries, without what a leader prepared before",
        )
        replica.apply_histogram.add_to(apply, [])
        yield apply
        yield _counter("raftkv_state_flushes", "Flushes of the state to disk", node.maintenance.flush_count)
        yield _gauge("raftkv_state_flush_last_seconds", "Time of the last flush", node.maintenance.last_flush_s)
        yield _counter("raftkv_snapshots_sent", "Snapshots sent and accepted", node.snapshots.sent_count)
        yield _counter("raftkv_snapshots_installed", "Snapshots installed here", node.snapshots.installed_count)
        yield _gauge(
            "raftkv_snapshot_taken_last_seconds", "Time to take the last snapshot", node.snapshots.last_taken_s
        )
        yield _gauge("raftkv_disk_full", "1 while writes are refused for lack of space", float(replica.is_disk_full))
        yield _gauge("raftkv_disk_free_bytes", "Free space where the data is", node.maintenance.free_bytes)

    def _loop(self) -> Iterator[Metric]:
        clock = self._node.replica.clock
        yield _counter("raftkv_loop_stalls", "Times that the event loop was held for over 50 ms", clock.stall_count)
        yield _gauge(
            "raftkv_loop_longest_stall_seconds", "The longest time that the event loop was held", clock.longest_stall_s
        )
