"""The core is a pure function: same settings, storage, seed and inputs give the same effects, byte for byte."""

from __future__ import annotations

import ast
import dataclasses
import os
import pathlib
import subprocess
import sys

import msgspec
import pytest

import raftkv.raft
from raftkv.raft import Effects
from tests.raft.cluster import Cluster

SCRIPT = "import sys; from tests.raft.test_determinism import fingerprint; print(fingerprint(int(sys.argv[1])).hex())"
CORE = pathlib.Path(raftkv.raft.__file__).parent


def busy_cluster(seed: int) -> Cluster:
    """Elections, writes, a change of members, a snapshot, reads and a transfer."""
    cluster = Cluster((1, 2, 3), spare=(4, 5), seed=seed, lease_reads=True)
    cluster.tick_until(lambda: any(server.node.is_leader for server in cluster.alive()))
    for number in range(20):
        cluster.leader().propose(b"%d" % number)
        cluster.settle()
        cluster.read(1 + number % 3, lease=number % 2 == 0)
    cluster.leader().compact()
    cluster.leader().propose_configuration((2, 3, 4), (5,))
    cluster.tick(60)
    cluster.leader().transfer_leadership()
    cluster.settle()
    cluster.isolate(cluster.leader().member_id)
    cluster.tick(100)
    cluster.heal()
    cluster.tick(50)
    return cluster


def encoded(effects: Effects) -> bytes:
    return msgspec.msgpack.encode(
        [getattr(effects, field.name) for field in dataclasses.fields(Effects)], enc_hook=dataclasses.astuple
    )


def fingerprint(seed: int) -> bytes:
    """Every effect of every server, in order."""
    return b"".join(encoded(effects) for server in busy_cluster(seed).servers.values() for effects in server.handed_out)


def test_the_same_seed_gives_the_same_effects() -> None:
    """Twice in one process."""
    first = fingerprint(1)
    assert first == fingerprint(1)
    assert len(first) > 10_000


def test_another_seed_gives_other_effects() -> None:
    """The seed is really used; else the test above could not fail."""
    assert len({fingerprint(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_effects_do_not_depend_on_the_process(hash_seed: str) -> None:
    """Another process, another hash seed: no order of a set, no address and no clock leaks into the effects."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "3"], capture_output=True, check=True, env=environment, text=True, cwd="."
    )
    assert done.stdout.strip() == fingerprint(3).hex()


def test_looking_changes_nothing() -> None:
    """`status`, `has_ready` and `check_all` may be called at any time by metrics and tests."""
    cluster = busy_cluster(5)
    for server in cluster.alive():
        before = server.status
        for _ in range(3):
            server.node.check_all()
            assert not server.node.has_ready()
            assert server.node.status() == before
        assert encoded(server.node.ready()) == encoded(Effects())


def test_the_core_imports_no_clock_disk_socket_or_thread() -> None:
    """Design: `raft/` knows no clock, disk, socket, thread, `async` or global randomness."""
    forbidden = {"asyncio", "datetime", "io", "os", "pathlib", "secrets", "select", "socket", "threading", "time"}
    for path in sorted(CORE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module.partition(".")[0]}
                assert node.module != "random" or [alias.name for alias in node.names] == ["Random"], path.name
            assert not names & forbidden, f"{path.name} imports {names & forbidden}"
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{path.name} is async"
