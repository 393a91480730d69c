"""What an operator reads in a node's log: that it started and where, who its cluster is, that it was stopped."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.runtime.nodes import Cluster, run


def test_a_start_each_change_of_members_and_a_stop_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, _ = await cluster.form("node1", "node2")
        await cluster.stop("node2")
        await node.stop()

    with caplog.at_level(logging.INFO, "raftkv.node"):
        run(tmp_path, scenario)
    said = [record.getMessage() for record in caplog.records if record.name == "raftkv.node"]
    members = [text for text in said if text.startswith("members: ")]
    # Each of the two says it of itself; node2 gave up its own cluster in between.
    assert members.count("members: node1, node2 (learner)") == 2
    assert members.count("members: node1, node2") == 2
    assert (said.count("started"), said.count("stopping"), said.count("stopped")) == (2, 2, 2)
    first = next(record for record in caplog.records if record.getMessage() == "started")
    assert first.__dict__["data_dir"].endswith("node1")
