"""What may go wrong, planned ahead from the seed: a list of faults with their times, so that it can be shrunk.

A fault names its nodes and how long it lasts, and chooses nothing when it happens: leaving one out changes no other.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from raftkv.errors import RaftkvError
from raftkv.sim.network import Weather

if TYPE_CHECKING:
    from raftkv.sim.cluster import Cluster
    from raftkv.sim.node import SimNode


class Fault(NamedTuple):
    """`nodes` by name; `for_s` is how long it lasts; `size` means what the kind says."""

    at_s: float
    kind: str
    nodes: tuple[str, ...] = ()
    for_s: float = 0.0
    size: float = 0.0

    def happen(self, cluster: Cluster) -> None:
        cluster.trace.event("", f"fault: {self}")
        KINDS[self.kind].happen(cluster, self)

    def __str__(self) -> str:
        who = f" {','.join(self.nodes)}" if self.nodes else ""
        lasting = f" for {self.for_s:.2f} s" if self.for_s else ""
        size = f" ({self.size:g})" if self.size else ""
        return f"{self.kind}{who}{lasting}{size}"


def _restart_later(cluster: Cluster, fault: Fault, node: SimNode) -> None:
    cluster.world.call_later(fault.for_s, node.start)


def _kill(cluster: Cluster, fault: Fault) -> None:
    for name in fault.nodes:
        cluster.node(name).kill()
        _restart_later(cluster, fault, cluster.node(name))


def _cut_power(cluster: Cluster, fault: Fault) -> None:
    for name in fault.nodes:
        cluster.node(name).cut_power()
        _restart_later(cluster, fault, cluster.node(name))


def _cut_power_in_operation(cluster: Cluster, fault: Fault) -> None:
    """Within the operation of the disk that is `size` away."""
    node = cluster.node(fault.nodes[0])
    if node.is_running:
        node.disk.operations_left = int(fault.size)

    def restart() -> None:
        node.disk.operations_left = None
        node.start()

    cluster.world.call_later(fault.for_s, restart)


def _pause(cluster: Cluster, fault: Fault) -> None:
    node = cluster.node(fault.nodes[0])
    node.pause()
    cluster.world.call_later(fault.for_s, node.resume)


def _cut_links(cluster: Cluster, fault: Fault, links: list[tuple[str, str]]) -> None:
    network = cluster.network
    for link in links:
        network.cut(*link)

    def mend() -> None:
        for link in links:
            network.mend(*link)

    cluster.world.call_later(fault.for_s, mend)


def _partition(cluster: Cluster, fault: Fault) -> None:
    """`nodes` on one side, all others on the other one."""
    others = [node.node_id for node in cluster.nodes if node.node_id not in fault.nodes]
    pairs = [(a, b) for a in fault.nodes for b in others]
    _cut_links(cluster, fault, [*pairs, *((b, a) for a, b in pairs)])


def _deaf(cluster: Cluster, fault: Fault) -> None:
    """The node hears nobody, and is heard."""
    name = fault.nodes[0]
    _cut_links(cluster, fault, [(node.node_id, name) for node in cluster.nodes if node.node_id != name])


def _mute(cluster: Cluster, fault: Fault) -> None:
    name = fault.nodes[0]
    _cut_links(cluster, fault, [(name, node.node_id) for node in cluster.nodes if node.node_id != name])


def _broken_link(cluster: Cluster, fault: Fault) -> None:
    """Two nodes do not reach each other; everybody else does."""
    a, b = fault.nodes[:2]
    _cut_links(cluster, fault, [(a, b), (b, a)])


def _isolate_leader(cluster: Cluster, fault: Fault) -> None:
    """Whoever leads now goes on with itself alone, and with what clients still give it."""
    leader = cluster.leader()
    if leader is not None:
        _partition(cluster, fault._replace(nodes=(leader.node_id,)))


def _kill_leader(cluster: Cluster, fault: Fault) -> None:
    leader = cluster.leader()
    if leader is not None:
        _kill(cluster, fault._replace(nodes=(leader.node_id,)))


def _storm(cluster: Cluster, fault: Fault) -> None:
    network, size = cluster.network, fault.size
    network.weather = Weather(
        delay_median_s=0.002 + 0.2 * size * size,
        delay_spread=1.0,
        loss=0.3 * size,
        duplication=0.3 * size,
        reordering=0.3 * size,
    )

    def end() -> None:
        network.weather = Weather()

    cluster.world.call_later(fault.for_s, end)


def _slow_disk(cluster: Cluster, fault: Fault) -> None:
    disk = cluster.node(fault.nodes[0]).disk
    disk.stalled_until_s = cluster.world.now_s + fault.for_s


def _slow_leader_disk(cluster: Cluster, fault: Fault) -> None:
    leader = cluster.leader()
    if leader is not None:
        _slow_disk(cluster, fault._replace(nodes=(leader.node_id,)))


def _failed_sync(cluster: Cluster, fault: Fault) -> None:
    """One sync ends with EIO: the node has to stop, and comes back with what its disk has."""
    node = cluster.node(fault.nodes[0])
    if node.is_running:
        cluster.excuse(node)
        node.disk.failing_sync_count = 1

    def restart() -> None:
        node.disk.failing_sync_count = 0
        node.cut_power("replaced")
        node.start()

    cluster.world.call_later(fault.for_s, restart)


def _clock_jump(cluster: Cluster, fault: Fault) -> None:
    """Forward only: what ticks are counted from never goes back (CLOCK_BOOTTIME)."""
    cluster.node(fault.nodes[0]).clock_offset_s += fault.size


def _transfer(cluster: Cluster, fault: Fault) -> None:
    leader = cluster.leader()
    target = cluster.node(fault.nodes[0])
    if leader is None or leader.loop is None or leader is target:
        return

    def ask() -> None:
        try:
            leader.replica.ask_core(leader.replica.raft.transfer_leadership, target.member.member_id)
        except RaftkvError as refused:
            cluster.trace.event(leader.node_id, f"transfer refused: {refused}")
        leader.replica.wake()

    leader.loop.call_soon(ask)


def change_members(cluster: Cluster, what: str, name: str) -> None:
    leader = cluster.leader()
    if leader is None or leader.loop is None:
        return

    async def work() -> None:
        try:
            if what == "remove":
                reply = await leader.membership.remove(name)
            else:
                reply = await leader.membership.join(name, cluster.node(name).member.raft_address)
            cluster.trace.event(leader.node_id, f"{what} {name}: {'done' if reply.is_complete else reply.progress}")
        except RaftkvError as refused:
            cluster.trace.event(leader.node_id, f"{what} {name}: {refused}")

    leader.loop.call_soon(lambda: leader.spawn(work()))


def _join(cluster: Cluster, fault: Fault) -> None:
    change_members(cluster, "join", fault.nodes[0])


def _remove(cluster: Cluster, fault: Fault) -> None:
    """Never below two members: what a cluster of one can do is another story."""
    if len(cluster.members()) > 2:
        change_members(cluster, "remove", fault.nodes[0])
        cluster.world.call_later(fault.for_s, change_members, cluster, "join", fault.nodes[0])


def _remove_leader(cluster: Cluster, fault: Fault) -> None:
    leader = cluster.leader()
    if leader is not None:
        _remove(cluster, fault._replace(nodes=(leader.node_id,)))


def _demote(cluster: Cluster, fault: Fault) -> None:
    """Ask, every few milliseconds and whoever leads just then, to make learners of `nodes`; they are promoted again.

    So changes begin at every awkward moment: right after an election, one upon the other, on a leader that is cut off.
    """
    leader, until_s = cluster.leader(), fault.at_s + fault.for_s
    if leader is not None and leader.loop is not None:
        leader.loop.call_soon(_ask_to_demote, leader, fault.nodes)
    if cluster.world.now_s < until_s:
        cluster.world.call_later(0.005, _demote, cluster, fault)


def _ask_to_demote(leader: SimNode, names: tuple[str, ...]) -> None:
    configuration = leader.replica.raft.configuration
    chosen = [member for member in configuration.voters if member.node_id in names]
    voters = [member for member in configuration.voters if member not in chosen]
    if chosen and voters:
        with contextlib.suppress(RaftkvError):
            leader.replica.standing.propose_configuration(voters, [*configuration.learners, *chosen])


def _wipe(cluster: Cluster, fault: Fault) -> None:
    """One member gets an empty disk and is joined again. One at a time: what is acknowledged stays on a majority."""
    node = cluster.node(fault.nodes[0])
    leader = cluster.leader()
    if leader is None or leader is node or len(cluster.members()) < 3 or not cluster.is_level():
        return
    cluster.wipe(node)
    node.start()
    cluster.world.call_later(fault.for_s * 0.1, _join_again, cluster, node, fault.for_s)


def _join_again(cluster: Cluster, node: SimNode, every_s: float) -> None:
    """As a node asks that waits to be joined (`runtime.membership.joining`): until it is a voter."""
    leader = cluster.leader()
    if leader is None or not leader.replica.configuration.is_voter(node.member.member_id):
        change_members(cluster, "join", node.node_id)
        cluster.world.call_later(every_s, _join_again, cluster, node, every_s)


def _upkeep(cluster: Cluster, fault: Fault) -> None:
    """Flush the state and cut the log behind it, now and not when it is due."""
    node = cluster.node(fault.nodes[0])
    if node.is_running:
        node.run_soon(lambda: node.spawn(node.maintenance.flush()))


def _rolling_restart(cluster: Cluster, fault: Fault) -> None:
    for number, node in enumerate(cluster.nodes):
        cluster.world.call_later(number * fault.for_s, node.kill, "restarted")
        cluster.world.call_later(number * fault.for_s + fault.for_s / 2, node.start)


class Kind(NamedTuple):
    """`node_count` (least, most), `for_s` (least, most) and `size` (least, most) are drawn for each fault."""

    happen: Callable[[Cluster, Fault], None]
    node_count: tuple[int, int] = (1, 1)
    for_s: tuple[float, float] = (0.0, 0.0)
    size: tuple[float, float] = (0.0, 0.0)
    weight: int = 10


KINDS = {
    "kill": Kind(_kill, (1, 2), (0.05, 8.0)),
    "kill-all": Kind(_kill, (99, 99), (0.05, 2.0), weight=3),
    "power-cut": Kind(_cut_power, (1, 2), (0.05, 8.0)),
    "power-cut-all": Kind(_cut_power, (99, 99), (0.05, 2.0), weight=4),
    "power-cut-in-write": Kind(_cut_power_in_operation, (1, 1), (2.0, 8.0), (1, 40)),
    "pause": Kind(_pause, (1, 1), (0.1, 6.0)),
    "partition": Kind(_partition, (1, 3), (0.5, 12.0)),
    "deaf": Kind(_deaf, (1, 1), (0.5, 8.0), weight=5),
    "mute": Kind(_mute, (1, 1), (0.5, 8.0), weight=5),
    "broken-link": Kind(_broken_link, (2, 2), (0.5, 15.0), weight=6),
    "storm": Kind(_storm, (0, 0), (1.0, 8.0), (0.1, 1.0)),
    "slow-disk": Kind(_slow_disk, (1, 1), (0.2, 12.0), weight=6),
    "failed-sync": Kind(_failed_sync, (1, 1), (2.0, 8.0), weight=4),
    "clock-jump": Kind(_clock_jump, (1, 1), size=(0.1, 5.0), weight=4),
    "transfer": Kind(_transfer, (1, 1), weight=8),
    "join": Kind(_join, (1, 1), weight=8),
    "remove": Kind(_remove, (1, 1), (1.0, 10.0), weight=6),
    "wipe": Kind(_wipe, (1, 1), (1.0, 10.0), weight=4),
    "upkeep": Kind(_upkeep, (1, 1), weight=8),
    "rolling-restart": Kind(_rolling_restart, (0, 0), (1.0, 4.0), weight=3),
    "isolate-leader": Kind(_isolate_leader, (0, 0), (0.5, 8.0), weight=8),
    "kill-leader": Kind(_kill_leader, (0, 0), (0.05, 6.0), weight=6),
    "slow-leader-disk": Kind(_slow_leader_disk, (0, 0), (0.5, 12.0), weight=4),
    "remove-leader": Kind(_remove_leader, (0, 0), (1.0, 10.0), weight=4),
    "demote": Kind(_demote, (1, 2), (0.05, 4.0), weight=6),
    "restart": Kind(_kill, (1, 1), (0.01, 0.2), weight=8),
}


def plan_faults(
    seed: int, node_count: int, duration_s: float, kinds: frozenset[str] | None = None
) -> tuple[Fault, ...]:
    """Each run has its own mixture: some see one kind again and again, some see all at once."""
    source = random.Random(f"{seed}/faults")
    names = [f"n{number + 1}" for number in range(node_count)]
    allowed = sorted(kinds) if kinds is not None else list(KINDS)
    chosen = source.sample(allowed, source.randint(1, len(allowed)))
    weights = [KINDS[kind].weight for kind in chosen]
    every_s = source.choice((0.7, 1.5, 3.0, 6.0))
    faults = []
    at_s = source.uniform(0.0, 4.0)
    while at_s < duration_s:
        faults.append(_draw(source, at_s, source.choices(chosen, weights)[0], names))
        at_s += source.expovariate(1 / every_s)
    return tuple(faults)


def _draw(source: random.Random, at_s: float, kind: str, names: list[str]) -> Fault:
    spec = KINDS[kind]
    count = min(source.randint(*spec.node_count), len(names))
    nodes = tuple(sorted(source.sample(names, count)))
    return Fault(
        round(at_s, 3), kind, nodes, round(source.uniform(*spec.for_s), 3), round(source.uniform(*spec.size), 3)
    )
