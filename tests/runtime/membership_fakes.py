"""A leader's core and the nodes that it can call, for tests of what a change of members asks and decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from raftkv.errors import ConfigurationInProgress, NotLeader, OutcomeUnknown, Unavailable
from raftkv.runtime import wire
from raftkv.types import Configuration, Member

CLUSTER_ID = 77
OTHER_CLUSTER_ID = 88


def member(number: int, address: str = "") -> Member:
    return Member(number, f"node{number}", address or f"host{number}:1111", f"host{number}:2221")


class FakeCore:
    """`membership.MembershipCore` of node1. A proposal takes effect at once, unless told otherwise."""

    def __init__(self, *voters: Member) -> None:
        self.own = voters[0]
        self.cluster_id = CLUSTER_ID
        self.is_leader = True
        self.is_closed = False
        self.configuration = Configuration(voters=voters)
        self.is_configuration_committed = True
        self.promotes_at_once = True
        self.commits_at_once = True
        self.recently_active: set[int] = set()
        self.refusals: list[Exception] = []
        """What the next proposals are answered with."""
        self.proposed: list[Configuration] = []
        self._event: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def propose_configuration(self, voters: Sequence[Member], learners: Sequence[Member]) -> None:
        if not self.is_leader:
            raise NotLeader
        if self.refusals:
            raise self.refusals.pop(0)
        if not self.is_configuration_committed:
            raise ConfigurationInProgress("another change is under way")
        target = Configuration(tuple(voters), tuple(learners))
        if target == self.configuration:
            return
        self.proposed.append(target)
        self.configuration = target
        self.is_configuration_committed = self.commits_at_once
        if self.promotes_at_once:
            self.promote()
        self.notify()

    def promote(self) -> None:
        """As the core does once a learner has caught up."""
        now = self.configuration
        self.configuration = Configuration(voters=now.voters + now.learners)
        self.notify()

    def commit(self) -> None:
        self.is_configuration_committed = True
        self.notify()

    def notify(self) -> None:
        event, self._event = self._event, asyncio.get_running_loop().create_future()
        event.set_result(None)

    def catch_up_progress(self, member_id: int) -> str:
        return f"{member_id} has 3 of 7 log entries"

    def is_recently_active(self, member_id: int) -> bool:
        return member_id in self.recently_active

    def configuration_event(self) -> asyncio.Future[None]:
        return asyncio.shield(self._event)


Answer: TypeAlias = "bytes | Exception | Callable[[object], object]"


class FakeNode:
    """A node that can be called: how it introduces itself, and what it does when it is to be absorbed."""

    def __init__(
        self, of: Member, cluster_id: int = OTHER_CLUSTER_ID, *, has_data: bool = False, count: int = 1
    ) -> None:
        self.probe_answer: Answer = wire.encode(
            wire.ProbeReply(of.node_id, of.member_id, cluster_id, count, has_data, of.raft_address, of.http_address)
        )
        self.absorb_answer: Answer = wire.encode(wire.AbsorbReply(of.member_id, of.http_address))


class FakeNetwork:
    """`membership.Call`; nodes by address. Every call is noted."""

    def __init__(self) -> None:
        self.nodes: dict[str, FakeNode] = {}
        self.calls: list[tuple[str, wire.CallKind]] = []
        self.absorbed: list[wire.Absorb] = []
        self.held: asyncio.Event | None = None
        """While set, calls wait for it."""

    async def call(self, address: str, kind: wire.CallKind, request: object, timeout_s: float) -> bytes:
        self.calls.append((address, kind))
        if self.held is not None:
            await self.held.wait()
        node = self.nodes.get(address)
        if node is None:
            raise Unavailable(f"cannot reach {address}: connection refused")
        if isinstance(request, wire.Absorb):
            self.absorbed.append(request)
        answer = node.probe_answer if kind is wire.CallKind.PROBE else node.absorb_answer
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, bytes)
        return answer


LOST = OutcomeUnknown("called it: connection lost; it may have acted")
