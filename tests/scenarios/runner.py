"""Runs a scenario: commands in, what happened out, both in one text that a person can read.

    # a comment, kept as it is
    > campaign 1
    the trace of that command, up to the next empty line, comment or command

Commands (N, M are member ids):

    cluster N… [spare N…] [knob=value…]    servers with their first configuration; timeouts are out of the way
    status                                 one row a server
    campaign N · propose N TEXT · read N [COUNT] · lease-read N · transfer N M
    members N voters M… [learners M…]      propose a configuration at N
    deliver N M [COUNT] · drop N M         messages from N to M: the oldest COUNT (all), delivered or lost
    settle [quietly]                       deliver everything, oldest first; quietly: changes only, no messages
    tick N|all [COUNT]                     clocks, without delivering
    timeout N TICKS                        the next election timeout of N, which is otherwise never reached
    crash N · restart N · hold N · sync N  hold: N's disk makes nothing durable until sync
    partition N… | M… · heal · compact N
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftkv.errors import Rejected
from raftkv.raft.messages import Message
from tests.raft.cluster import Cluster, Flight
from tests.raft.harness import Server
from tests.scenarios.trace import Looked, changes, describe_message, describe_server, look

NEVER_TICKS = 1_000_000


@dataclasses.dataclass
class Block:
    """One command with its trace, or lines that are kept as they are (`command` empty)."""

    command: str
    lines: list[str]


def parse(text: str) -> list[Block]:
    blocks: list[Block] = []
    for line in text.splitlines():
        if line.startswith("> "):
            blocks.append(Block(line[2:], []))
        elif not line.strip() or line.startswith("#") or not blocks or not blocks[-1].command:
            blocks.append(Block("", [line]))
        else:
            blocks[-1].lines.append(line)
    return blocks


def render(blocks: list[Block]) -> str:
    lines: list[str] = []
    for block in blocks:
        lines += [f"> {block.command}", *block.lines] if block.command else block.lines
    return "\n".join(lines) + "\n"


def run(text: str) -> str:
    """The same text with the traces that the core really gives."""
    scenario = Scenario()
    return render([Block(b.command, scenario.run(b.command) if b.command else b.lines) for b in parse(text)])


def run_file(path: Path) -> tuple[str, str]:
    """(what the file says, what happened)."""
    text = path.read_text(encoding="utf-8")
    return text, run(text)


class TracedCluster(Cluster):
    """Tells of every delivery and every change."""

    def __init__(self, voters: list[int], spare: list[int], **knobs: Any) -> None:
        self.trace: list[str] = []
        self.is_quiet = False
        self._looked: dict[int, Looked] = {}
        super().__init__(voters, spare=spare, **knobs)

    def _collect(self, server: Server) -> None:
        before = self._looked.get(server.member_id)
        if before is not None:
            self.trace += changes(server, before)
        self._looked[server.member_id] = look(server)
        super()._collect(server)

    def _arrive(self, flight: Flight) -> None:
        if not self.is_quiet:
            lost = " (lost, it is down)" if self.servers[flight.message.recipient].is_crashed else ""
            self.trace.append(describe_message(flight.message) + lost)
        super()._arrive(flight)

    def drop(self, position: int = 0) -> Message:
        self.trace.append(f"{describe_message(self.in_flight[position].message)} (lost)")
        return super().drop(position)

    def restart(self, member_id: int) -> None:
        self._looked.pop(member_id, None)
        super().restart(member_id)


class Scenario:
    def __init__(self) -> None:
        self.cluster = TracedCluster([], [])

    def run(self, command: str) -> list[str]:
        name, *words = command.split()
        commands: dict[str, Callable[[list[str]], None]] = {
            "cluster": self.make_cluster,
            "status": self.status,
            "campaign": lambda w: self.server(w).campaign(),
            "propose": lambda w: self.told(self.server(w).propose(" ".join(w[1:]).encode()), "entry"),
            "read": self.read,
            "lease-read": lambda w: self.told(self.cluster.read(int(w[0]), lease=True), "read"),
            "transfer": lambda w: self.server(w).transfer_leadership(int(w[1])),
            "members": self.members,
            "deliver": self.deliver,
            "drop": self.drop,
            "settle": self.settle,
            "tick": self.tick,
            "timeout": lambda w: self.server(w).node.set_randomized_election_timeout(int(w[1])),
            "crash": lambda w: self.cluster.crash(int(w[0])),
            "restart": self.restart,
            "hold": lambda w: setattr(self.server(w), "is_disk_held", True),
            "sync": self.sync,
            "partition": self.partition,
            "heal": lambda _: self.cluster.heal(),
            "compact": lambda w: self.server(w).compact(),
        }
        try:
            commands[name](words)
        except Rejected as refused:
            self.cluster.trace.append(f"{type(refused).__name__}: {refused}")
        if name not in {"timeout", "status"}:
            self._keep_timeouts_away()
        trace, self.cluster.trace = self.cluster.trace, []
        return trace

    def server(self, words: list[str]) -> Server:
        return self.cluster[int(words[0])]

    def told(self, number: int, what: str) -> None:
        self.cluster.trace.append(f"{what} {number}")

    def _keep_timeouts_away(self) -> None:
        """Nobody campaigns unless the scenario says so; role changes draw a new timeout."""
        for server in self.cluster.alive():
            server.node.set_randomized_election_timeout(NEVER_TICKS)

    def make_cluster(self, words: list[str]) -> None:
        knobs = dict(word.split("=") for word in words if "=" in word)
        ids = [word for word in words if "=" not in word]
        middle = ids.index("spare") if "spare" in ids else len(ids)
        self.cluster = TracedCluster(
            [int(word) for word in ids[:middle]],
            [int(word) for word in ids[middle + 1 :]],
            **{name: int(value) for name, value in knobs.items()},
        )

    def status(self, _: list[str]) -> None:
        self.cluster.trace += [describe_server(server) for server in self.cluster.servers.values()]

    def read(self, words: list[str]) -> None:
        """Several at once: asked before the core is asked for its effects."""
        server = self.server(words)
        for _ in range(int(words[1]) - 1 if len(words) > 1 else 0):
            request_id = self.cluster.next_request_id()
            server.node.request_read(request_id)
            self.told(request_id, "read")
        self.told(self.cluster.read(server.member_id), "read")

    def members(self, words: list[str]) -> None:
        middle = words.index("learners") if "learners" in words else len(words)
        voters = [int(word) for word in words[2:middle]]
        self.told(self.server(words).propose_configuration(voters, map(int, words[middle + 1 :])), "entry")

    def deliver(self, words: list[str]) -> None:
        count = int(words[2]) if len(words) > 2 else len(self.cluster.in_flight)
        for flight in self._on_link(words)[:count]:
            self.cluster.deliver(self.cluster.in_flight.index(flight))

    def drop(self, words: list[str]) -> None:
        for flight in self._on_link(words):
            self.cluster.drop(self.cluster.in_flight.index(flight))

    def _on_link(self, words: list[str]) -> list[Flight]:
        return [flight for flight in self.cluster.in_flight if flight.link == (int(words[0]), int(words[1]))]

    def settle(self, words: list[str]) -> None:
        self.cluster.is_quiet = words == ["quietly"]
        while self.cluster.in_flight:
            self.cluster.deliver()
            self._keep_timeouts_away()
        self.cluster.is_quiet = False

    def tick(self, words: list[str]) -> None:
        servers = self.cluster.alive() if words[0] == "all" else [self.server(words)]
        for _ in range(int(words[1]) if len(words) > 1 else 1):
            for server in servers:
                server.tick()

    def restart(self, words: list[str]) -> None:
        self.cluster.restart(int(words[0]))
        self.cluster.trace.append(describe_server(self.server(words)))

    def sync(self, words: list[str]) -> None:
        server = self.server(words)
        server.is_disk_held = False
        server.sync()

    def partition(self, words: list[str]) -> None:
        groups = " ".join(words).split("|")
        self.cluster.partition(*([int(word) for word in group.split()] for group in groups))
