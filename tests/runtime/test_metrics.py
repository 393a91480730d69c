"""Metrics say what is so: every family after some work, and that a scrape is safe at any moment of a node's life."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from raftkv.errors import Unavailable
from raftkv.runtime import Histogram, Node
from raftkv.runtime.watching.histogram import LATENCY_BOUNDS_S
from raftkv.runtime.watching.metrics import SLOW_SYNC_PERIOD_S, SLOW_SYNC_S, LogMetrics
from raftkv.types import Consistency, Role
from tests.runtime.nodes import Cluster, get, put, run, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(node: Node) -> Samples:
    samples: Samples = {}
    for family in node.metrics_registry.collect():
        for sample in family.samples:
            key = (sample.name.removeprefix("raftkv_"), tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} is exported twice"
            samples[key] = sample.value
    return samples


def plain(samples: Samples) -> dict[str, float]:
    """The samples without labels."""
    return {name: value for (name, labels), value in samples.items() if not labels}


def test_every_metric_has_a_plausible_value_after_some_work(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        for i in range(20):
            await put(node1, f"key{i}", "v" * 10)
        await get(node1, "key1", Consistency.LINEARIZABLE)
        await node1.maintenance.flush()
        await until(lambda: node2.is_ready, "node2 is level")
        samples = scrape(node1)
        values = plain(samples)
        status = node1.replica.raft.status()
        assert values["raft_term"] == status.current_term
        assert values["raft_has_leader"] == values["node_ready"] == 1
        assert values["raft_last_index"] >= values["raft_commit_index"] >= values["raft_applied_index"] > 20
        assert values["raft_voters"] == 2
        assert values["raft_learners"] == 0
        assert values["raft_leader_changes_total"] == 1
        assert values["revision"] == 21
        for name in ("proposals_pending", "forwarded_pending", "reads_pending", "disk_full"):
            assert values[name] == 0
        assert values["disk_free_bytes"] > 0
        assert values["state_flushes_total"] >= 1
        assert values["state_flush_last_seconds"] > 0
        assert values["log_written_bytes_total"] > 20 * 10
        assert values["log_written_records_total"] >= 20
        assert 0 < values["log_sync_longest_seconds"] <= values["log_sync_seconds_sum"]
        assert values["log_sync_seconds_count"] >= 20
        assert values["apply_seconds_count"] >= 20
        assert values["log_base_index"] == node1.replica.log.base.last_index
        roles = {dict(labels)["role"]: value for (name, labels), value in samples.items() if name == "raft_role"}
        assert roles == {role.value: float(role is Role.LEADER) for role in Role}
        peer = (("peer", "node2"),)
        assert samples["peer_connected", peer] == 1
        assert samples["peer_lag_entries", peer] == 0
        assert samples["peer_sent_bytes_total", peer] > samples["peer_dropped_frames_total", peer]
        assert samples["peer_received_bytes_total", peer] > 0

    run(tmp_path, story)


def test_counters_only_grow_and_gauges_follow(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        before = scrape(node)
        await asyncio.gather(*(put(node, f"key{i}", "1") for i in range(50)))
        after = scrape(node)
        for key, value in before.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                assert after[key] >= value, key
        assert plain(after)["revision"] == plain(before)["revision"] + 50

    run(tmp_path, story)


def test_snapshots_are_counted_at_both_ends(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        (node1,) = await cluster.form("node1", segment_size_bytes=64 * 1024)
        for start in range(0, 600, 100):
            await asyncio.gather(*(put(node1, f"key{i}", "v" * 200) for i in range(start, start + 100)))
        await node1.maintenance.flush()
        assert node1.replica.log.base.last_index > 0
        node2 = await cluster.start("node2")
        await cluster.join("node1", "node2")
        stats = node1.transport.stats
        await until(lambda: stats.snapshots_sent + stats.snapshots_unsent > 0, "the sender knows")
        assert plain(scrape(node1))["snapshots_sent_total"] == stats.snapshots_sent
        assert plain(scrape(node1))["snapshot_taken_last_seconds"] > 0
        assert plain(scrape(node2))["snapshots_installed_total"] == 1

    run(tmp_path, story)


def test_a_node_that_has_failed_or_stopped_can_still_be_scraped(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        node.failed(Unavailable("for the test"))
        assert plain(scrape(node))["node_ready"] == 0
        await node.stop()
        assert b"raftkv_raft_term" in generate_latest(node.metrics_registry)

    run(tmp_path, story)


def test_names_follow_the_conventions(tmp_path: Path) -> None:
    """Prometheus: base units in the name, every family with a text."""

    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        for family in node.metrics_registry.collect():
            assert family.name.startswith("raftkv_")
            assert family.documentation
            assert not family.name.endswith(("_ms", "_total", "_milliseconds", "_kb"))
            if family.type == "histogram":
                assert family.name.endswith("_seconds")

    run(tmp_path, story)


# ---- The histogram


def buckets(histogram: Histogram) -> dict[str, float]:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily("h", "")
    histogram.add_to(family, [])
    return {s.labels["le"]: s.value for s in family.samples if s.name == "h_bucket"}


def test_an_observation_counts_in_its_bucket_and_all_above() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.1001, 1.0, 7.0):
        histogram.observe(seconds)
    assert buckets(histogram) == {"0.1": 2, "1.0": 4, "+Inf": 5}
    assert histogram.count == 5
    assert histogram.sum_s == pytest.approx(8.2501)


def test_the_bounds_ascend_from_a_tenth_of_a_millisecond_to_ten_seconds() -> None:
    assert sorted(LATENCY_BOUNDS_S) == list(LATENCY_BOUNDS_S)
    assert (LATENCY_BOUNDS_S[0], LATENCY_BOUNDS_S[-1]) == (0.0001, 10.0)


def test_a_slow_disk_is_named_as_such_and_not_once_a_write(caplog: pytest.LogCaptureFixture) -> None:
    times_s = [100.0]
    metrics = LogMetrics(lambda: times_s[0])
    with caplog.at_level(logging.WARNING, "raftkv"):
        metrics.observe_sync(SLOW_SYNC_S - 0.001, 10, 1)
        assert caplog.records == []
        for _ in range(5):
            metrics.observe_sync(SLOW_SYNC_S, 4096, 1)
        times_s[0] += SLOW_SYNC_PERIOD_S
        metrics.observe_sync(2.5, 4096, 1)
    assert all("the disk is slow" in record.message for record in caplog.records)
    facts = [(record.__dict__["seconds"], record.__dict__["slow_count"]) for record in caplog.records]
    assert facts == [(SLOW_SYNC_S, 1), (2.5, 5)]
