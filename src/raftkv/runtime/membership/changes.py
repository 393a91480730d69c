"""Join and remove, made safe (docs/design/joining.md).

The leader decides everything here; other nodes pass the request on. Before anything is changed the node to be
joined is asked who it is. That one question prevents what breaks clusters in practice: an address
where nobody answers (the quorum would be lost for good), a node of another name, a node that holds data of
its own, a node whose disk was wiped and which may have forgotten a vote.

Every request can be repeated: what is already so is answered at once, what is half done goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from raftkv.errors import (
    ConfigurationInProgress,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    Rejected,
)
from raftkv.runtime import wire
from raftkv.runtime.membership.introductions import check_introduction
from raftkv.types import Configuration, Member

PROBE_TIMEOUT_S = 3.0
CHANGE_RETRY_S = 0.05


class MembershipCore(Protocol):
    """What is needed of the running replica."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def own(self) -> Member: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def is_closed(self) -> bool:
        """It takes part no more and learns of nothing; then it does not lead either."""
        ...

    @property
    def configuration(self) -> Configuration: ...
    @property
    def is_configuration_committed(self) -> bool:
        """The configuration in force is committed and not joint."""
        ...

    def propose_configuration(self, voters: Sequence[Member], learners: Sequence[Member]) -> None: ...

    def is_recently_active(self, member_id: int) -> bool:
        """Whether the leader has heard that member in the last election timeout."""
        ...

    def catch_up_progress(self, member_id: int) -> str:
        """How far a learner is, for people."""
        ...

    def configuration_event(self) -> asyncio.Future[None]:
        """Done after the next change, or commit, of a configuration or of leadership, counted from this call on."""
        ...


Call = Callable[[str, wire.CallKind, object, float], Awaitable[bytes]]


class Membership:
    """The leader's procedure. `core()` is the replica of the moment."""

    def __init__(self, core: Callable[[], MembershipCore], call: Call, *, join_timeout_s: float) -> None:
        self._core = core
        self._call = call
        self._join_timeout_s = join_timeout_s
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_changing(self) -> bool:
        """A request is being carried out here, and what it was decided by must stay so."""
        return self._one_at_a_time.locked()

    async def join(self, node_id: str, raft_address: str) -> wire.ChangeReply:
        """Make `node_id` a voter, or report how far it has come when the wait is over.

        Raises `MembershipRefused` when that would be unsafe: nothing was changed then.
        """
        deadline_s = asyncio.get_running_loop().time() + self._join_timeout_s
        async with self._one_at_a_time:
            core = self._leading()
            if node_id == core.own.node_id:
                await self._join_self(core, raft_address, deadline_s)
                return wire.ChangeReply(is_complete=True)
            target = await self._probe(core, node_id, raft_address)
            member = await self._admit(core, target, raft_address, deadline_s)
        return await self._until_voter(member, deadline_s)

    async def remove(self, node_id: str) -> wire.ChangeReply:
        """Returns once the cluster has committed a configuration without `node_id`, or has none with it."""
        deadline_s = asyncio.get_running_loop().time() + self._join_timeout_s
        async with self._one_at_a_time:
            core = self._leading()
            member = core.configuration.find(node_id)
            if member is None:
                return wire.ChangeReply(is_complete=True)
            voters = _without(core.configuration.voters, node_id)
            if not voters:
                raise MembershipRefused(
                    f"{node_id} is the only voter; a cluster without voters could never decide again"
                )
            await self._propose(lambda: self._propose_without(node_id), deadline_s)
            return await self._until_gone(member, deadline_s)

    async def _join_self(self, core: MembershipCore, raft_address: str, deadline_s: float) -> None:
        """The leader is a member already; at most its addresses are news."""
        own = core.own
        if raft_address != own.raft_address:
            raise MembershipRefused(f"{own.node_id} is the leader itself, at {own.raft_address}; nothing was changed")
        if core.configuration.members().get(own.member_id) != own:
            await self._propose(lambda: self._propose_address(own), deadline_s)

    def _propose_without(self, node_id: str) -> None:
        core = self._leading()
        configuration = core.configuration
        core.propose_configuration(_without(configuration.voters, node_id), _without(configuration.learners, node_id))

    async def _probe(self, core: MembershipCore, node_id: str, raft_address: str) -> wire.ProbeReply:
        try:
            reply = await self._ask(raft_address)
        except (Rejected, OutcomeUnknown) as error:
            raise MembershipRefused(
                f"{node_id} was not joined: {raft_address} does not answer as a raftkv node ({error}); nothing was "
                "changed. Start the node first and check its raft address"
            ) from error
        if reply.node_id != node_id:
            raise MembershipRefused(
                f"the node at {raft_address} calls itself {reply.node_id!r}, not {node_id!r}; nothing was changed"
            )
        introduced = Member(reply.member_id, reply.node_id, raft_address, reply.http_address)
        check_introduction(core.configuration.members(), introduced)
        return reply

    async def _ask(self, raft_address: str) -> wire.ProbeReply:
        data = await self._call(raft_address, wire.CallKind.PROBE, wire.Probe(), PROBE_TIMEOUT_S)
        return wire.decode_answer(data, wire.ProbeReply)

    async def _require_gone(self, core: MembershipCore, existing: Member, raft_address: str) -> None:
        """Another node calls itself as `existing` does, and answers at `raft_address`: only the dead are replaced.

        That another one answers at the address of `existing` proves that this one is gone (its disk was wiped), however
        lately it was heard.
        """
        if raft_address == existing.raft_address:
            return
        try:
            found = await self._ask(existing.raft_address)
        except (Rejected, OutcomeUnknown):
            is_there, why = core.is_recently_active(existing.member_id), "was heard a moment ago"
        else:
            is_there, why = found.member_id == existing.member_id, "answers there"
        if is_there:
            raise MembershipRefused(
                f"{existing.node_id} is a member at {existing.raft_address} and {why}; the node at {raft_address} is "
                "another one of that name. Nothing was changed. Give that one a name of its own; if it is to take the "
                "place of the member, stop the member first and try again"
            )

    async def _admit(
        self, core: MembershipCore, target: wire.ProbeReply, raft_address: str, deadline_s: float
    ) -> Member:
        """Bring `target` into the configuration, as a learner unless it is there already."""
        member = Member(target.member_id, target.node_id, raft_address, target.http_address)
        existing = core.configuration.find(target.node_id)
        if existing is not None and existing.member_id == target.member_id and target.cluster_id == core.cluster_id:
            if existing != member:
                await self._propose(lambda: self._propose_address(member), deadline_s)
            return member
        for other in core.configuration.members().values():
            if other.raft_address == raft_address and other.node_id != target.node_id:
                raise MembershipRefused(f"{raft_address} belongs to member {other.node_id}; nothing was changed")
        if existing is not None:
            await self._require_gone(core, existing, raft_address)
        if target.cluster_id != core.cluster_id:
            member = await self._absorb(core, target, raft_address)
        await self._propose(lambda: self._propose_learner(member), deadline_s)
        return member

    async def _absorb(self, core: MembershipCore, target: wire.ProbeReply, raft_address: str) -> Member:
        if target.has_user_data or target.member_count > 1:
            why = "holds data of its own" if target.has_user_data else f"is one of {target.member_count} members"
            raise MembershipRefused(
                f"{target.node_id} at {raft_address} {why} in another cluster; joining would throw that away. Nothing "
                "was changed. To join it all the same, stop it, empty its data directory and start it again"
            )
        request = wire.Absorb(core.cluster_id, target.cluster_id, target.member_id, core.configuration)
        try:
            data = await self._call(raft_address, wire.CallKind.ABSORB, request, self._join_timeout_s)
            reply = wire.decode_answer(data, wire.AbsorbReply)
        except OutcomeUnknown as error:
            raise OutcomeUnknown(
                f"whether {target.node_id} has left its own empty cluster is not known ({error}); it is no member yet. "
                "Join it again"
            ) from error
        member = Member(reply.member_id, target.node_id, raft_address, reply.http_address)
        check_introduction(core.configuration.members(), member)
        return member

    def _propose_address(self, member: Member) -> None:
        core = self._leading()
        configuration = core.configuration

        def replaced(group: tuple[Member, ...]) -> list[Member]:
            return [member if m.member_id == member.member_id else m for m in group]

        core.propose_configuration(replaced(configuration.voters), replaced(configuration.learners))

    def _propose_learner(self, member: Member) -> None:
        # A member of the same name has another, forgotten identity (its disk was wiped): it leaves in the same
        # change, because it can no longer keep the promises it made as a voter.
        core = self._leading()
        configuration = core.configuration
        if configuration.find(member.node_id) == member:
            return
        learners = [*_without(configuration.learners, member.node_id), member]
        voters = _without(configuration.voters, member.node_id)
        if not voters:
            raise MembershipRefused(
                f"{member.node_id} is the only voter and its disk was wiped; restore a backup instead"
            )
        core.propose_configuration(voters, learners)

    async def _propose(self, propose: Callable[[], None], deadline_s: float) -> None:
        """Propose as soon as no other change is under way."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                propose()
            except ConfigurationInProgress:
                if loop.time() >= deadline_s:
                    raise
                await _wait(self._core().configuration_event(), CHANGE_RETRY_S)
            else:
                return

    async def _until_voter(self, member: Member, deadline_s: float) -> wire.ChangeReply:
        loop = asyncio.get_running_loop()
        while True:
            core = self._core()
            if core.configuration.is_voter(member.member_id) and core.is_configuration_committed:
                return wire.ChangeReply(is_complete=True)
            if not core.is_leader:
                return wire.ChangeReply(
                    is_complete=False, progress="leadership moved during the join; join it again to be sure"
                )
            if loop.time() >= deadline_s:
                return wire.ChangeReply(is_complete=False, progress=core.catch_up_progress(member.member_id))
            await _wait(core.configuration_event(), min(1.0, deadline_s - loop.time()))

    async def _until_gone(self, member: Member, deadline_s: float) -> wire.ChangeReply:
        loop = asyncio.get_running_loop()
        while True:
            core = self._core()
            if member.member_id not in core.configuration.members() and core.is_configuration_committed:
                return wire.ChangeReply(is_complete=True)
            is_informed = core.is_leader or core.own.member_id == member.member_id
            if core.is_closed or not is_informed or loop.time() >= deadline_s:
                raise OutcomeUnknown(
                    f"the removal of {member.node_id} was proposed but not confirmed in time; ask for the members"
                )
            await _wait(core.configuration_event(), min(1.0, max(0.01, deadline_s - loop.time())))

    def _leading(self) -> MembershipCore:
        core = self._core()
        if not core.is_leader:
            raise NotLeader
        return core


def _without(group: tuple[Member, ...], node_id: str) -> list[Member]:
    return [member for member in group if member.node_id != node_id]


async def _wait(event: Awaitable[None], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):  # asyncio.wait_for may swallow a cancellation
            await event
