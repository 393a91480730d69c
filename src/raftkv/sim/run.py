"""One run from one seed: a cluster, clients, faults, then peace, and the questions at the end."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from raftkv.errors import InvalidInput
from raftkv.sim.checks import Violation
from raftkv.sim.cluster import Cluster
from raftkv.sim.faults import Fault, change_members, plan_faults
from raftkv.sim.history import Kind, Operation
from raftkv.sim.own import OwnMachine, load_class
from raftkv.sim.own_work import OwnWorkload
from raftkv.sim.trace import Event, Frame
from raftkv.sim.tuning import DEFAULT_TUNING, Tuning, variant_of
from raftkv.sim.workload import Workload
from raftkv.types import Consistency

PEACE_MAX_S = 120.0
"""Longer than any timeout here: a cluster that is not level by then has lost its liveness."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is made of; the same plan gives the same run. `faults` None: those that the seed gives."""

    seed: int
    node_count: int = 5
    spare_count: int = 1
    duration_s: float = 60.0
    client_count: int = 4
    think_s: float = 0.4
    lease_share: float = 0.2
    local_share: float = 0.05
    value_max_bytes: int = 0
    """Of random length up to here; 0 for values of a few bytes."""
    tuning: Tuning = DEFAULT_TUNING
    kinds: frozenset[str] | None = None
    faults: tuple[Fault, ...] | None = None
    state_machine: str = ""
    """`module:Class` of a machine of the user's own, see `machine`; empty for the key-value state."""

    def planned_faults(self) -> tuple[Fault, ...]:
        if self.faults is not None:
            return self.faults
        return plan_faults(self.seed, self.node_count + self.spare_count, self.duration_s, self.kinds)


def varied(plan: Plan) -> Plan:
    """As the seed wants it: every seventh stays as it is, the others are of the kinds in `tuning`."""
    changes: dict[str, Any] = variant_of(plan.seed)
    return dataclasses.replace(plan, **changes)


@dataclasses.dataclass(frozen=True)
class Outcome:
    plan: Plan
    violation: Violation | None
    digest: str
    events: Sequence[Event]
    history: Sequence[Operation]
    simulated_s: float
    step_count: int
    acknowledged_count: int
    found_count: int
    committed_count: int
    leader_count: int
    fault_count: int
    frame_count: int
    frames: Sequence[Frame] = ()


def save_plan(plan: Plan, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")


def load_plan(path: Path) -> Plan:
    """Raises `InvalidInput` for a file that holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"{path} holds no plan of a simulation: {error}") from error


def run(plan: Plan, *, keeps_frames: bool = False) -> Outcome:
    """Run until the end, or until the first violation."""
    with _silence():
        return _run(plan, keeps_frames)


def _run(plan: Plan, keeps_frames: bool) -> Outcome:
    own = load_class(plan.state_machine) if plan.state_machine else None
    cluster = Cluster(plan.seed, plan.node_count, plan.spare_count, plan.tuning, own)
    checks, world = cluster.checks, cluster.world
    cluster.trace.frames = [] if keeps_frames else None
    cluster.start()
    workload = _workload(plan, cluster, own)
    faults = plan.planned_faults()
    for fault in faults:
        world.call_at(fault.at_s, fault.happen, cluster)
    world.run(plan.duration_s, lambda: bool(checks.violations))
    if not checks.violations:
        _make_peace(cluster, workload)
    if not checks.violations:
        _ask_at_the_end(cluster, workload)
    return Outcome(
        plan=plan,
        violation=checks.violations[0] if checks.violations else None,
        digest=cluster.trace.digest(),
        events=cluster.trace.events,
        history=workload.history,
        simulated_s=world.now_s,
        step_count=checks.step_count,
        acknowledged_count=workload.acknowledged_count,
        found_count=workload.found_count,
        committed_count=checks.facts[cluster.cluster_id].commit_index,
        leader_count=checks.leader_count,
        fault_count=len(faults),
        frame_count=cluster.network.sent_count,
        frames=cluster.trace.frames or (),
    )


def _workload(plan: Plan, cluster: Cluster, own: type[OwnMachine] | None) -> Workload:
    if own is not None:
        return OwnWorkload(cluster, own, client_count=plan.client_count, think_s=plan.think_s)
    return Workload(
        cluster,
        client_count=plan.client_count,
        think_s=plan.think_s,
        lease_share=plan.lease_share,
        local_share=plan.local_share,
        value_max_bytes=plan.value_max_bytes,
    )


def _make_peace(cluster: Cluster, workload: Workload) -> None:
    """Faults end, everybody runs; then the cluster has to become level, with clients still at work for a while."""
    checks, world = cluster.checks, cluster.world
    cluster.trace.event("", "peace")
    cluster.network.mend_all()
    for node in cluster.nodes:
        node.disk.failing_sync_count = 0
        node.disk.stalled_until_s = 0.0
        node.disk.capacity_bytes = 1 << 40
        node.disk.operations_left = None
        node.resume()
        node.start()
    for wait_s in range(1, int(PEACE_MAX_S), 5):
        world.call_later(wait_s, _join_replaced, cluster)
    world.run(world.now_s + 5.0, lambda: bool(checks.violations))
    workload.is_over = True
    world.run(world.now_s + 6.0, lambda: bool(checks.violations))
    is_level = world.run(world.now_s + PEACE_MAX_S, lambda: bool(checks.violations) or cluster.is_level())
    checks.must(is_level, f"liveness: not level after {PEACE_MAX_S:.0f} s of peace")


def _join_replaced(cluster: Cluster) -> None:
    """What whoever runs a cluster does: a member whose disk was replaced is joined again under its name."""
    leader = cluster.leader()
    if leader is None:
        return
    for node in cluster.nodes:
        member = leader.replica.configuration.find(node.node_id)
        if member is not None and member.member_id != node.member.member_id:
            change_members(cluster, "join", node.node_id)


def _ask_at_the_end(cluster: Cluster, workload: Workload) -> None:
    checks = cluster.checks
    _read_everything(cluster, workload)
    members = [cluster.node(name) for name in sorted(cluster.members())]
    hashes = {node.node_id: node.replica.machine.state_hash() for node in members}
    checks.must(len(set(hashes.values())) == 1, f"states differ: {hashes}")
    wrong = workload.verdict(cluster)
    checks.must(not wrong, wrong)


def _read_everything(cluster: Cluster, workload: Workload) -> None:
    """Every key on every member: what is lost is seen by the check of the history."""
    world = cluster.world
    waiting: list[str] = []

    def read(node: Any, key: bytes) -> None:
        name = f"end-{node.node_id}-{key.decode()}"
        begun_s = world.now_s
        waiting.append(name)

        def done(outcome: Any) -> None:
            waiting.remove(name)
            workload.note(name, Kind.GET, key, None, begun_s, world.now_s, outcome)

        node.loop.call_soon(node.replica.clients.read, key, Consistency.LINEARIZABLE, done)

    for name in sorted(cluster.members()):
        for key in workload.keys:
            read(cluster.node(name), key)
    before = len(workload.history)
    cluster.checks.must(
        world.run(world.now_s + 10.0, lambda: not waiting), f"liveness: reads are not answered: {waiting[:3]}"
    )
    expected = len(workload.keys) * len(cluster.members())
    cluster.checks.must(len(workload.history) - before == expected, "liveness: reads were refused at the end")


@contextmanager
def _silence() -> Iterator[None]:
    """The nodes' logs would be of thousands of nodes."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
