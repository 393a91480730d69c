"""What a replica says of itself as a member: who it is, whom it stands with, who leads; and what changes that.

Implements `changes.MembershipCore`. Everything is read from the replica at the moment of the question.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raftkv.errors import MembershipRefused, Unavailable
from raftkv.raft import configuration_problem
from raftkv.runtime import wire
from raftkv.types import NOBODY, Configuration, EntryKind, Member, MemberId

if TYPE_CHECKING:
    from raftkv.runtime.replica import Replica

EMPTY_REVISION = 1
"""An empty store's revision, as etcd counts."""
UNAPPLIED_MAX_BYTES = 64 << 10
"""Of entries that are looked through for commands; an empty node has next to none."""


class Standing:
    """One replica's; see the module."""

    def __init__(self, replica: Replica, now: Callable[[], float]) -> None:
        self._replica = replica
        self._now = now
        self._events: set[asyncio.Future[None]] = set()
        self._is_member = False
        self._has_been_member = replica.log.last_index > 0
        """A log that is not empty was written by a member, or by one that soon will be; a blank node has none."""
        self.configuration_in_force(replica.configuration)

    @property
    def own(self) -> Member:
        return self._replica.own

    @property
    def cluster_id(self) -> int:
        return self._replica.cluster_id

    @property
    def is_leader(self) -> bool:
        return self._replica.is_leader and not self._replica.is_closed

    @property
    def is_closed(self) -> bool:
        return self._replica.is_closed

    @property
    def configuration(self) -> Configuration:
        return self._replica.configuration

    @property
    def is_removed(self) -> bool:
        """It was a member, and the committed configuration is without it: what it holds moves no more.

        A node that waits to be joined, or is on its way in, is no member either, but was none before. Started again on
        its way in it cannot tell the two apart until its leader reaches it, and says so in the safe direction.
        """
        if self._is_member or not self._has_been_member:
            return False
        return self._replica.raft.configuration_index <= self._replica.raft.commit_index

    def removed(self) -> Unavailable:
        """What such a node answers."""
        return Unavailable(f"{self.own.node_id} was removed from the cluster; ask another member, or join it again")

    def configuration_in_force(self, configuration: Configuration) -> None:
        self._is_member = self._replica.own.member_id in configuration.members()
        self._has_been_member = self._has_been_member or self._is_member

    def introduce(self) -> wire.ProbeReply:
        """Who this node is, for a leader that considers joining it."""
        own = self._replica.own
        return wire.ProbeReply(
            own.node_id,
            own.member_id,
            self._replica.cluster_id,
            len(self._replica.configuration.members()),
            self._replica.machine.revision > EMPTY_REVISION,
            own.raft_address,
            own.http_address,
        )

    def check_absorbable(self, request: wire.Absorb) -> None:
        """Raises `MembershipRefused` if anything could be lost by giving up this node's cluster."""
        replica, own = self._replica, self._replica.own
        if (replica.cluster_id, own.member_id) != (request.expected_cluster_id, request.expected_member_id):
            raise MembershipRefused(f"{own.node_id} is not the node that was asked before; nothing was changed")
        # Without members to wait for, a restart would take the directory for a fresh one, and lead that cluster alone.
        problem = configuration_problem(request.configuration)
        if problem or request.cluster_id <= 0:
            raise MembershipRefused(f"no cluster to join: {problem or 'its id is not positive'}; nothing was changed")
        # The core's own configuration, which may be newer than what the replica was told in its last turn.
        members = replica.raft.configuration.members().values()
        others = [m.node_id for m in members if m.member_id != own.member_id]
        if others:
            raise MembershipRefused(f"{own.node_id} has a cluster with {', '.join(others)}; nothing was changed")
        has_work = replica.proposals.pending_count or self._has_unapplied_commands()
        if has_work or replica.machine.revision > EMPTY_REVISION:
            raise MembershipRefused(f"{own.node_id} holds data of its own; nothing was changed")

    def _has_unapplied_commands(self) -> bool:
        """A node that has just elected itself has an entry without commands on its way to the state."""
        log, first = self._replica.log, self._replica.machine.last_applied + 1
        if first > log.last_index:
            return False
        entries = log.entries(first, log.last_index, UNAPPLIED_MAX_BYTES)
        return entries[-1].index < log.last_index or any(entry.kind is EntryKind.COMMANDS for entry in entries)

    def campaign_if_alone(self) -> None:
        """The only voter need not wait for a timeout."""
        voters = self._replica.configuration.voters
        if (
            len(voters) == 1
            and voters[0].member_id == self._replica.own.member_id
            and not self._replica.configuration.is_joint
        ):
            self._replica.campaign()

    async def hand_over(self, target: MemberId | None, timeout_s: float) -> bool:
        """Transfer leadership; true once this replica leads no more (Thesis §3.10).

        The core gives up on an heir that does not take over within an election timeout, for it may have just
        stopped too; without a `target` another one is then tried.
        """
        deadline_s = self._now() + timeout_s
        retry_s = (self._replica.settings.election_timeout_ms + 2 * self._replica.settings.tick_interval_ms) / 1000
        while self._replica.is_leader and self._now() < deadline_s and not self._replica.is_closed:
            if self._replica.raft.status().transfer_target == NOBODY:
                self._replica.ask_core(self._replica.raft.transfer_leadership, target)
                self._replica.wake()
            with contextlib.suppress(TimeoutError):
                remaining_s = max(0.001, deadline_s - self._now())
                async with asyncio.timeout(min(retry_s, remaining_s)):  # wait_for may swallow a cancellation
                    await self.configuration_event()
        return not self._replica.is_leader

    def last_contact(self) -> str:
        """How long ago the leader was heard, as the reference writes it."""
        if self._replica.is_leader:
            return "0"
        if not self._replica.heard_at_s:
            return "never"
        return f"{(self._now() - self._replica.heard_at_s) * 1000:.0f}ms"

    @property
    def is_configuration_committed(self) -> bool:
        status = self._replica.raft.status()
        return not status.configuration.is_joint and status.configuration_index <= status.commit_index

    def propose_configuration(self, voters: Sequence[Member], learners: Sequence[Member]) -> None:
        self._replica.ask_core(self._replica.raft.propose_configuration, voters, learners)
        self._replica.wake()

    def is_recently_active(self, member_id: MemberId) -> bool:
        progress = self._replica.raft.status().progress.get(member_id)
        return progress is not None and progress.recent_active

    def catch_up_progress(self, member_id: MemberId) -> str:
        status = self._replica.raft.status()
        progress = status.progress.get(member_id)
        if progress is None:
            return "not a member yet"
        return f"has {progress.match_index} of {status.last_index} log entries ({progress.state})"

    def configuration_event(self) -> asyncio.Future[None]:
        event: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events.add(event)
        event.add_done_callback(self._events.discard)
        return event

    def notify(self) -> None:
        """A configuration or the leadership has changed, or was committed: wake whoever waits for that."""
        for event in tuple(self._events):
            if not event.done():
                event.set_result(None)
