"""The few words that every room shares.

A *member* is a server in the configuration. Its identity inside consensus is `member_id`, a random
number made when its data directory was made: a server whose disk was wiped comes back as a different
member, because it may have forgotten a vote (Raft §5.2 relies on votes being remembered). `node_id` is
the name that people give it, and stays the same.

Turned down: using the name as the identity and comparing an incarnation beside it. Every place that
forgets the comparison is then a safety bug; with one number there is nothing to forget.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

MemberId: TypeAlias = int
"""1 to 2**63 - 1; 0 never names a member and stands for "nobody" on the wire."""

NOBODY: MemberId = 0


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One server of a configuration and where it can be reached (each address is `host:port`)."""

    member_id: MemberId
    node_id: str
    raft_address: str = ""
    http_address: str = ""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Who votes (Raft §6).

    Outside a change `voters_outgoing` and `learners_next` are empty. During a change the configuration
    is joint: `voters` is the new majority set, `voters_outgoing` the old one, and a decision needs a
    majority of both. `learners_next` are outgoing voters that become learners when the joint
    configuration is left. A member stands in at most one of `voters` and `learners`.
    """

    voters: tuple[Member, ...] = ()
    learners: tuple[Member, ...] = ()
    voters_outgoing: tuple[Member, ...] = ()
    learners_next: tuple[Member, ...] = ()

    @property
    def is_joint(self) -> bool:
        return bool(self.voters_outgoing)

    def members(self) -> dict[MemberId, Member]:
        """Every member once, in the order voters, outgoing voters, learners; new addresses win."""
        found: dict[MemberId, Member] = {}
        for group in (self.voters, self.learners, self.voters_outgoing, self.learners_next):
            for member in group:
                found.setdefault(member.member_id, member)
        return found

    def is_voter(self, member_id: MemberId) -> bool:
        return any(m.member_id == member_id for m in self.voters + self.voters_outgoing)

    def find(self, node_id: str) -> Member | None:
        """The member with that name, if the configuration has one."""
        return next((m for m in self.members().values() if m.node_id == node_id), None)


class EntryKind(enum.IntEnum):
    NOOP = 0
    CONFIGURATION = 1
    COMMANDS = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry. `data` is empty for a no-op, an encoded `Configuration`, or a batch of commands."""

    index: int
    term: int
    kind: EntryKind
    data: bytes = b""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a server must remember before it answers (Raft figure 2, "persistent state")."""

    current_term: int = 0
    voted_for: MemberId = NOBODY


class SnapshotMetadata(msgspec.Struct, frozen=True, array_like=True):
    """Where a snapshot, or the cut beginning of a log, stands (Raft §7).

    `configuration` is the latest one at or before `last_index`, and `configuration_index` is that
    configuration's own log index, never the snapshot's.
    """

    last_index: int = 0
    last_term: int = 0
    configuration: Configuration = Configuration()
    configuration_index: int = 0


class Role(enum.StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class WriteMode(enum.StrEnum):
    """What a node that is not the leader does with a write."""

    FORWARD = "forward"
    REDIRECT = "redirect"
    REJECT = "reject"


class Consistency(enum.StrEnum):
    """What a read promises: this node's applied state, or nothing older than when the read began (Thesis §6.4)."""

    LOCAL = "local"
    LINEARIZABLE = "linearizable"
    LEASE = "lease"
