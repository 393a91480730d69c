"""Questions between nodes, both sides: who are you, join, remove, hand over, leave your empty cluster.

Any node takes them and passes them on to the leader once; a node that was asked by another one and does not
lead refuses, so that two nodes with different ideas of the leader cannot send a request round in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from raftkv.errors import InvalidInput, MembershipRefused, NoLeader, Unavailable
from raftkv.runtime import wire
from raftkv.runtime.membership.changes import Membership
from raftkv.types import Member

if TYPE_CHECKING:
    from raftkv.runtime.node import Node

CALL_GRACE_S = 3.0
"""What a forwarded call may take beyond the time that the leader itself allows."""

Change: TypeAlias = wire.Join | wire.Remove | wire.Transfer


class ClusterCalls:
    """The membership calls of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        join_timeout_s = node.settings.join_timeout_ms / 1000
        self._change_timeout_s = join_timeout_s + CALL_GRACE_S
        self._membership = Membership(lambda: node.replica.standing, self.call, join_timeout_s=join_timeout_s)
        self._answers: dict[int, Callable[[bytes], Coroutine[Any, Any, object]]] = {
            wire.CallKind.PROBE: self._answer_probe,
            wire.CallKind.ABSORB: self._answer_absorb,
            wire.CallKind.JOIN: self._answer_join,
            wire.CallKind.REMOVE: self._answer_remove,
            wire.CallKind.TRANSFER: self._answer_transfer,
        }

    async def answer(self, kind: int, payload: bytes) -> bytes:
        """Raises `PeerProtocolError` for a malformed question, `InvalidInput` for an unknown one."""
        answer = self._answers.get(kind)
        if answer is None:
            raise InvalidInput(f"this node knows no call {kind}")
        return wire.encode(await answer(payload))

    async def join(self, request: wire.Join) -> wire.ChangeReply:
        if self._node.replica.is_leader:
            return await self._membership.join(request.node_id, request.raft_address)
        return await self._ask_leader(wire.CallKind.JOIN, request)

    async def remove(self, request: wire.Remove) -> wire.ChangeReply:
        if self._node.replica.is_leader:
            return await self._membership.remove(request.node_id)
        return await self._ask_leader(wire.CallKind.REMOVE, request)

    async def transfer(self, request: wire.Transfer) -> wire.ChangeReply:
        replica = self._node.replica
        if not replica.is_leader:
            return await self._ask_leader(wire.CallKind.TRANSFER, request)
        target = None
        if request.node_id:
            member = replica.configuration.find(request.node_id)
            if member is None or not replica.configuration.is_voter(member.member_id):
                raise MembershipRefused(f"{request.node_id!r} is not a voter of this cluster")
            if member.member_id == replica.own.member_id:
                return wire.ChangeReply(is_complete=True)
            target = member.member_id
        if not await replica.standing.hand_over(target, 2 * self._node.settings.election_timeout_ms / 1000):
            raise Unavailable("leadership could not be handed over in time; try again")
        return wire.ChangeReply(is_complete=True)

    def check_idle(self) -> None:
        """Two lone nodes, each joined to the other at once, would both give up what the other enters."""
        if self._membership.is_changing:
            raise Unavailable("this node is changing the members of its own cluster; try again")

    async def join_through(self, address: str, own: Member) -> wire.ChangeReply:
        """Ask the node at `address` to have this node joined."""
        request = wire.Join(own.node_id, own.raft_address)
        data = await self.call(address, wire.CallKind.JOIN, request, self._change_timeout_s)
        return wire.decode_answer(data, wire.ChangeReply)

    async def probe(self, address: str) -> wire.ProbeReply:
        data = await self.call(address, wire.CallKind.PROBE, wire.Probe(), CALL_GRACE_S)
        return wire.decode_answer(data, wire.ProbeReply)

    async def call(self, address: str, kind: wire.CallKind, request: object, timeout_s: float) -> bytes:
        return await self._node.transport.call(address, kind, wire.encode(request), timeout_s)

    async def _ask_leader(self, kind: wire.CallKind, request: Change) -> wire.ChangeReply:
        leader = self._node.replica.leader_member()
        if leader is None and self._node.replica.standing.is_removed:
            raise self._node.replica.standing.removed()
        if leader is None or request.is_forwarded or leader.member_id == self._node.replica.own.member_id:
            raise NoLeader("no leader is known here; try again shortly")
        forwarded = msgspec.structs.replace(request, is_forwarded=True)
        data = await self.call(leader.raft_address, kind, forwarded, self._change_timeout_s)
        return wire.decode_answer(data, wire.ChangeReply)

    async def _answer_probe(self, payload: bytes) -> wire.ProbeReply:
        wire.decode(payload, wire.Probe)
        return self._node.replica.standing.introduce()

    async def _answer_absorb(self, payload: bytes) -> wire.AbsorbReply:
        await self._node.become_blank(wire.decode(payload, wire.Absorb))
        own = self._node.replica.own
        return wire.AbsorbReply(own.member_id, own.http_address)

    async def _answer_join(self, payload: bytes) -> wire.ChangeReply:
        return await self.join(wire.decode(payload, wire.Join))

    async def _answer_remove(self, payload: bytes) -> wire.ChangeReply:
        return await self.remove(wire.decode(payload, wire.Remove))

    async def _answer_transfer(self, payload: bytes) -> wire.ChangeReply:
        return await self.transfer(wire.decode(payload, wire.Transfer))
