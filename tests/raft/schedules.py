"""Random schedules: a cluster, a seeded adversary, and what must be true at every moment and at the end.

The adversary delivers, drops, doubles and reorders messages, moves clocks apart, holds disks, crashes servers between
any two steps, cuts links, changes members, hands leadership over, cuts logs and asks for reads. After each event the
cluster-wide checks run. At the end everything is repaired, and the cluster must come to rest: one leader, one
configuration, equal states that hold every committed entry.

One failing seed is replayed, with the events printed, by

    python -m tests.raft.schedules SEED

and `python -m tests.raft.schedules FIRST --count 10000` soaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Callable

from raftkv.errors import Rejected
from raftkv.types import MemberId, Role
from tests.raft.checks import must
from tests.raft.cluster import Cluster
from tests.raft.harness import Server

EVENT_COUNT = 500
SERVER_IDS = range(1, 7)


@dataclasses.dataclass(frozen=True)
class AskedRead:
    commit_index: int
    """The highest commit index that any server showed when the read was asked: what it must not miss."""
    is_lease: bool


class Schedule:
    """The world of one seed. With `lease_reads` all clocks run at one speed, because leases rely on that."""

    def __init__(self, seed: int, on_event: Callable[[str], object] = lambda _: None) -> None:
        self.random = random.Random(f"{seed}/schedule")
        self.has_leases = seed % 4 == 0
        self.on_event = on_event
        voters = self.random.choice([(1,), (1, 2), (1, 2, 3), (1, 2, 3), (1, 2, 3, 4, 5)])
        self.cluster = Cluster(
            voters,
            spare=[member_id for member_id in SERVER_IDS if member_id not in voters],
            seed=seed,
            election_timeout_ticks=8,
            heartbeat_ticks=2,
            lease_reads=self.has_leases,
            pre_vote=self.random.random() < 0.8,
            append_max_bytes=self.random.choice([100, 1 << 20]),
            inflight_max_count=self.random.choice([1, 4, 64]),
            tail_max_bytes=self.random.choice([0, 500, 1 << 20]),
            committed_max_bytes=self.random.choice([100, 1 << 20]),
        )
        self.reads: dict[tuple[MemberId, int], AskedRead] = {}
        self.command_count = 0
        self.fault_rate = self.random.choice([0.0, 0.3, 1.0])

    # ---- events; each returns what it did, or "" when there was nothing to do

    def deliver(self) -> str:
        """A few; mostly the oldest, sometimes any other, which is reordering."""
        in_flight = self.cluster.in_flight
        done = []
        for _ in range(self.random.choice((1, 2, 4, 8))):
            if in_flight:
                is_reordered = self.random.random() < 0.2 * self.fault_rate
                done.append(self.cluster.deliver(self.random.randrange(len(in_flight)) if is_reordered else 0))
        return f"deliver {done}" if done else ""

    def drop(self) -> str:
        in_flight = self.cluster.in_flight
        return f"drop {self.cluster.drop(self.random.randrange(len(in_flight)))}" if in_flight else ""

    def duplicate(self) -> str:
        in_flight = self.cluster.in_flight
        if not in_flight:
            return ""
        self.cluster.duplicate(self.random.randrange(len(in_flight)))
        return f"duplicate {in_flight[-1].message}"

    def tick(self) -> str:
        """Some clocks, so that they drift apart; all of them, in any order, when leases rely on equal speeds."""
        servers = [server for server in self.cluster.alive() if self.has_leases or self.random.random() < 0.6]
        self.random.shuffle(servers)
        for server in servers:
            server.tick()
        return f"tick {[server.member_id for server in servers]}"

    def any_server(self) -> Server | None:
        servers = self.cluster.alive()
        return self.random.choice(servers) if servers else None

    def propose(self) -> str:
        leaders = [server for server in self.cluster.alive() if server.role is Role.LEADER]
        if not leaders:
            return ""
        leader = self.random.choice(leaders)
        self.command_count += 1
        data = b"%d" % self.command_count
        try:
            index = leader.propose(data + bytes(self.random.choice([0, 60])))
        except Rejected as refused:
            return f"propose {data!r} at {leader.member_id}: {refused}"
        return f"propose {data!r} at {leader.member_id}: {index}"

    def read(self) -> str:
        server = self.any_server()
        if server is None:
            return ""
        is_lease = self.has_leases and self.random.random() < 0.7
        asked = AskedRead(self.cluster.checks.commit_index, is_lease)
        first = len(server.reads)
        request_id = self.cluster.next_request_id()
        self.reads[server.member_id, request_id] = asked
        server.request_read(request_id, is_lease)
        return f"read {request_id} at {server.member_id}, lease {is_lease}: {server.reads[first:]}"

    def campaign(self) -> str:
        """Not with leases: a campaign by hand breaks the promise that they rely on."""
        server = self.any_server()
        if server is None or self.has_leases:
            return ""
        server.campaign()
        return f"campaign {server.member_id}"

    def crash(self) -> str:
        server = self.any_server()
        if server is None:
            return ""
        keep_steps = self.random.randrange(len(server.unsynced) + 1)
        self.cluster.crash(server.member_id, keep_steps)
        return f"crash {server.member_id} keeping {keep_steps} steps"

    def restart(self) -> str:
        crashed = [server.member_id for server in self.cluster.servers.values() if server.is_crashed]
        if not crashed:
            return ""
        member_id = self.random.choice(crashed)
        self.forget_reads(member_id)
        self.cluster.restart(member_id)
        return f"restart {member_id}"

    def hold_or_sync(self) -> str:
        """A slow disk: its steps become durable a few at a time."""
        server = self.any_server()
        if server is None:
            return ""
        if not server.is_disk_held:
            server.is_disk_held = True
            return f"disk of {server.member_id} held"
        if self.random.random() < 0.5:
            server.is_disk_held = False
            server.sync()
            return f"disk of {server.member_id} released"
        server.sync(1)
        return f"disk of {server.member_id} did one step"

    def hold_or_apply(self) -> str:
        server = self.any_server()
        if server is None:
            return ""
        server.is_apply_held = not server.is_apply_held
        if not server.is_apply_held:
            server.apply()
        return f"apply of {server.member_id} held: {server.is_apply_held}"

    def flush(self) -> str:
        server = self.any_server()
        if server is None:
            return ""
        server.machine.flush()
        return f"flush {server.member_id}"

    def compact(self) -> str:
        server = self.any_server()
        if server is None or server.machine.last_applied <= server.log.base.last_index or server.is_installing:
            return ""
        last_index = self.random.randint(server.log.base.last_index + 1, server.machine.last_applied)
        server.compact(last_index)
        return f"compact {server.member_id} to {last_index}"

    def cut_links(self) -> str:
        if self.cluster.cut_links:
            self.cluster.heal()
            return "heal"
        ids = list(SERVER_IDS)
        self.random.shuffle(ids)
        middle = self.random.randrange(1, len(ids))
        if self.random.random() < 0.3:
            self.cluster.cut_links = {(a, b) for a in ids for b in ids if a != b and self.random.random() < 0.3}
            return f"cut {sorted(self.cluster.cut_links)}"
        self.cluster.partition(ids[:middle], ids[middle:])
        return f"partition {sorted(ids[:middle])} {sorted(ids[middle:])}"

    def change_members(self) -> str:
        leaders = [server for server in self.cluster.alive() if server.role is Role.LEADER]
        if not leaders:
            return ""
        leader = self.random.choice(leaders)
        voters = self.random.sample(SERVER_IDS, self.random.randint(1, 5))
        rest = [member_id for member_id in SERVER_IDS if member_id not in voters]
        learners = self.random.sample(rest, min(len(rest), self.random.choice([0, 0, 1])))
        try:
            index = leader.propose_configuration(voters, learners)
        except Rejected as refused:
            return f"members {voters}, learners {learners} at {leader.member_id}: {refused}"
        return f"members {voters}, learners {learners} at {leader.member_id}: {index}"

    def transfer(self) -> str:
        leaders = [server for server in self.cluster.alive() if server.role is Role.LEADER]
        if not leaders:
            return ""
        leader = self.random.choice(leaders)
        target = self.random.choice([None, *SERVER_IDS])
        try:
            leader.transfer_leadership(target)
        except Rejected as refused:
            return f"transfer {leader.member_id} to {target}: {refused}"
        return f"transfer {leader.member_id} to {target}"

    def unreachable(self) -> str:
        server, other = self.any_server(), self.random.choice(SERVER_IDS)
        if server is None:
            return ""
        server.unreachable(other)
        return f"unreachable {other} for {server.member_id}"

    # ---- the run

    def events(self) -> list[tuple[Callable[[], str], float]]:
        faults = self.fault_rate
        return [
            (self.deliver, 40),
            (self.tick, 25),
            (self.propose, 10),
            (self.read, 4),
            (self.hold_or_sync, 4),
            (self.hold_or_apply, 1),
            (self.flush, 1),
            (self.compact, 1),
            (self.change_members, 2),
            (self.transfer, 0.7),
            (self.campaign, 0.3),
            (self.unreachable, 0.5),
            (self.drop, 6 * faults),
            (self.duplicate, 4 * faults),
            (self.cut_links, 0.8 * faults),
            (self.crash, 2 * faults),
            (self.restart, 3),
        ]

    def run(self, event_count: int = EVENT_COUNT) -> None:
        events = self.events()
        kinds, weights = [kind for kind, _ in events], [weight for _, weight in events]
        for number, kind in enumerate(self.random.choices(kinds, weights, k=event_count)):
            done = kind()
            if done:
                self.on_event(f"{number}: {done}")
            self.check_reads()
        self.on_event("repair")
        self.come_to_rest()

    def check_reads(self) -> None:
        """Thesis §6.4: a confirmed read sees everything that was committed when it was asked."""
        for server in self.cluster.alive():
            for read in server.reads:
                asked = self.reads.pop((server.member_id, read.request_id), None)
                must(asked is not None, f"server {server.member_id} confirmed {read} that nobody asked, or twice")
                if asked is not None:
                    fact = f"{read} at {server.member_id} misses entries committed up to {asked.commit_index}, {asked}"
                    must(read.read_index >= asked.commit_index, fact)
            for request_id in server.refused_reads:
                was_asked = self.reads.pop((server.member_id, request_id), None)
                must(was_asked is not None, f"read {request_id} refused at {server.member_id}, never asked or twice")
            server.reads.clear()
            server.refused_reads.clear()

    def forget_reads(self, member_id: MemberId) -> None:
        """A crash answers nothing."""
        self.reads = {key: asked for key, asked in self.reads.items() if key[0] != member_id}

    def come_to_rest(self) -> None:
        """Liveness, in fair weather: everything works again, so everything must be decided."""
        cluster = self.cluster
        cluster.heal()
        for server in cluster.servers.values():
            if server.is_crashed:
                self.forget_reads(server.member_id)
                cluster.restart(server.member_id)
            server.is_disk_held = server.is_apply_held = False
            server.sync()
            server.apply()
        cluster.tick_until(self.is_at_rest, limit=600)
        cluster.tick(2 * cluster.leader().settings.election_timeout_ticks)  # a lost question is refused after one
        self.check_reads()
        must(not self.reads, f"reads neither confirmed nor refused: {self.reads}")
        leader = cluster.leader()
        before = cluster.checks.commit_index
        leader.propose(b"last")
        cluster.tick_until(lambda: self.is_at_rest() and cluster.checks.commit_index > before, limit=200)
        history = cluster.leader().machine.history
        must(len(history) == cluster.checks.commit_index, "the leader has not applied everything that was committed")
        for member_id in leader.status.configuration.members():
            must(cluster[member_id].machine.history == history, f"server {member_id} differs from the leader")

    def is_at_rest(self) -> bool:
        leaders = [server for server in self.cluster.alive() if server.role is Role.LEADER]
        if len(leaders) != 1:
            return False
        status = leaders[0].status
        members = status.configuration.members()
        return (
            not status.configuration.is_joint
            and not status.configuration.learners
            and leaders[0].member_id in members
            and status.commit_index == status.last_index
            and status.transfer_target == 0
            and all(self.cluster[member_id].machine.last_applied == status.last_index for member_id in members)
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.raft.schedules", description="Replay or soak schedules.")
    parser.add_argument("first", type=int, help="the seed to replay, or the first one to run")
    parser.add_argument("--count", type=int, default=1, help="run so many seeds, printing only their numbers")
    parser.add_argument("--events", type=int, default=EVENT_COUNT)
    arguments = parser.parse_args()
    say = sys.stdout.write
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            Schedule(seed, (lambda text: say(text + "\n")) if arguments.count == 1 else len).run(arguments.events)
        except BaseException:
            say(
                f"\nseed {seed} fails; replay with: python -m tests.raft.schedules {seed} --events {arguments.events}\n"
            )
            raise
        if arguments.count > 1 and seed % 100 == 0:
            say(f"seed {seed} passes\n")


if __name__ == "__main__":
    main()
