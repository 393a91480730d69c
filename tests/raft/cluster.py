"""A deterministic network of servers: every message is delivered, dropped, doubled or reordered by the test.

Messages wait in `in_flight` in the order they were sent. Nothing moves by itself: `settle` delivers until
nothing is left, `tick` moves clocks, and everything else is a named event. After each input to any
server the cluster-wide checks run.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from raftkv.raft import RaftSettings
from raftkv.raft.messages import InstallSnapshot, Message
from raftkv.types import Configuration, Entry, HardState, MemberId, Role
from tests.raft.checks import ClusterChecks
from tests.raft.harness import Server
from tests.raft.words import configuration, entries_of_terms


@dataclasses.dataclass(frozen=True)
class Flight:
    """A message on its way; a snapshot travels with the state that it describes."""

    message: Message
    history: tuple[Entry, ...] = ()

    @property
    def link(self) -> tuple[MemberId, MemberId]:
        return self.message.sender, self.message.recipient


class Cluster:
    def __init__(
        self,
        voters: Iterable[MemberId] = (1, 2, 3),
        learners: Iterable[MemberId] = (),
        *,
        spare: Iterable[MemberId] = (),
        logs: Mapping[MemberId, Sequence[int]] | None = None,
        term: int = 0,
        seed: int = 0,
        **knobs: object,
    ) -> None:
        """`spare` servers are in no configuration: they know the first one, as a server that is about to join does.

        `logs` gives servers a log to start with, as the paper's figures draw it: one term for each entry.
        `term` is the least that they know of.
        """
        self.seed = seed
        self.knobs = knobs
        self.random = random.Random(f"{seed}/network")
        self.checks = ClusterChecks()
        self.in_flight: list[Flight] = []
        self.cut_links: set[tuple[MemberId, MemberId]] = set()
        self.servers: dict[MemberId, Server] = {}
        self._request_ids = itertools.count(1)
        initial = configuration(voters, learners)
        for member_id in (m.member_id for m in initial.voters + initial.learners):
            self.add_server(member_id, initial, (logs or {}).get(member_id, ()), term)
        for member_id in spare:
            self.add_server(member_id, initial)

    def add_server(self, member_id: MemberId, initial: Configuration, log: Sequence[int] = (), term: int = 0) -> Server:
        settings = RaftSettings(member_id=member_id, **self.knobs)  # type: ignore[arg-type]
        server = Server(
            member_id,
            initial,
            entries=entries_of_terms(log),
            hard_state=HardState(max(term, *log) if log else term),
            seed=self.seed,
            settings=settings,
            after_input=self._collect,
        )
        self.servers[member_id] = server
        return server

    def __getitem__(self, member_id: MemberId) -> Server:
        return self.servers[member_id]

    def _collect(self, server: Server) -> None:
        """Everything a server wants sent goes on its way, and everything it shows is checked."""
        self.checks.after_step(server)
        for message in server.outbox:
            self.checks.sent(server, message)
            self._launch(Flight(message))
        server.outbox.clear()
        wanted, server.snapshots_to_send = server.snapshots_to_send, []
        for recipient in wanted:
            flight = Flight(server.install_snapshot_message(recipient), tuple(server.machine.history))
            if not self._launch(flight):
                server.snapshot_sent(recipient, ok=False)

    def _launch(self, flight: Flight) -> bool:
        if flight.link in self.cut_links or flight.message.recipient not in self.servers:
            return False
        self.in_flight.append(flight)
        return True

    # ---- the network

    def deliver(self, position: int = 0) -> Message:
        """Take one message out of the network, the oldest by default, and hand it to its recipient."""
        flight = self.in_flight.pop(position)
        self._arrive(flight)
        return flight.message

    def _arrive(self, flight: Flight) -> None:
        recipient = self.servers[flight.message.recipient]
        is_lost = recipient.is_crashed
        if not is_lost:
            if isinstance(flight.message, InstallSnapshot):
                recipient.stage(flight.message.snapshot, flight.history)
            recipient.step(flight.message)
        if isinstance(flight.message, InstallSnapshot):
            self._report_snapshot(flight.message, ok=not is_lost)

    def _report_snapshot(self, message: InstallSnapshot, ok: bool) -> None:
        sender = self.servers[message.sender]
        if not sender.is_crashed:
            sender.snapshot_sent(message.recipient, ok)

    def drop(self, position: int = 0) -> Message:
        flight = self.in_flight.pop(position)
        if isinstance(flight.message, InstallSnapshot):
            self._report_snapshot(flight.message, ok=False)
        return flight.message

    def duplicate(self, position: int = 0) -> None:
        self.in_flight.append(self.in_flight[position])

    def settle(self, limit: int = 20_000) -> None:
        """Deliver, oldest first, until nothing is on its way."""
        for _ in range(limit):
            if not self.in_flight:
                return
            self.deliver()
        raise AssertionError(f"still {len(self.in_flight)} messages after {limit} deliveries: {self.in_flight[:5]}")

    def deliver_only(self, kind: type[Message], sender: MemberId | None = None, to: MemberId | None = None) -> int:
        """Deliver what is in flight now of one kind (and link), leaving all else where it is."""
        chosen = [
            flight
            for flight in self.in_flight
            if isinstance(flight.message, kind)
            and sender in (None, flight.message.sender)
            and to in (None, flight.message.recipient)
        ]
        for flight in chosen:
            self.in_flight.remove(flight)
            self._arrive(flight)
        return len(chosen)

    def lose_all(self) -> None:
        while self.in_flight:
            self.drop()

    def partition(self, *groups: Iterable[MemberId]) -> None:
        """Only members of one group hear each other; what is on its way across is lost."""
        group_of = {member_id: number for number, group in enumerate(groups) for member_id in group}
        self.cut_links = {
            (a, b) for a, b in itertools.permutations(self.servers, 2) if group_of.get(a, -a) != group_of.get(b, -b)
        }
        for flight in [flight for flight in self.in_flight if flight.link in self.cut_links]:
            self.drop(self.in_flight.index(flight))

    def isolate(self, *member_ids: MemberId) -> None:
        """Each of them alone, everyone else together."""
        rest = [member_id for member_id in self.servers if member_id not in member_ids]
        self.partition(rest, *([member_id] for member_id in member_ids))

    def heal(self) -> None:
        self.cut_links.clear()

    # ---- time, crashes

    def alive(self) -> list[Server]:
        return [server for server in self.servers.values() if not server.is_crashed]

    def tick(self, count: int = 1, *, settle: bool = True) -> None:
        """Every clock moves; messages are delivered between ticks unless told otherwise."""
        for _ in range(count):
            for server in self.alive():
                server.tick()
            if settle:
                self.settle()

    def tick_until(self, is_done: Callable[[], bool], limit: int = 400) -> None:
        for _ in range(limit):
            if is_done():
                return
            self.tick()
        raise AssertionError(f"not reached within {limit} ticks")

    def crash(self, member_id: MemberId, keep_steps: int = 0) -> None:
        self.servers[member_id].crash(keep_steps)

    def restart(self, member_id: MemberId) -> None:
        server = self.servers[member_id]
        self.checks.restarted(server)
        server.restart()

    # ---- stories told once

    def leader(self) -> Server:
        """The leader of the highest term."""
        leaders = [server for server in self.alive() if server.role is Role.LEADER]
        assert leaders, "no leader"
        return max(leaders, key=lambda server: server.term)

    def elect(self, member_id: MemberId) -> Server:
        """Let everyone's lease on the old leader run out, then campaign until `member_id` leads."""
        server = self.servers[member_id]
        if server.role is not Role.LEADER:
            for other in self.alive():
                other.node.set_randomized_election_timeout(1000)
            old = [other for other in self.alive() if other.role is Role.LEADER]
            assert not old or old == [server], f"{old[0].member_id} leads already"
            for other in self.alive():
                other.tick(other.settings.election_timeout_ticks)
            self.settle()
            server.campaign()
            self.settle()
        assert server.role is Role.LEADER, server.status
        return server

    def read(self, member_id: MemberId, lease: bool = False) -> int:
        """Ask for a read on that server; returns its request id."""
        request_id = self.next_request_id()
        self.servers[member_id].request_read(request_id, lease)
        return request_id

    def next_request_id(self) -> int:
        return next(self._request_ids)

    def commands(self) -> dict[MemberId, list[bytes]]:
        return {server.member_id: server.machine.commands for server in self.alive()}
