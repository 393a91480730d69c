"""Majorities, and nothing else (Raft §5.2, §6).

A decision needs a majority of `incoming` and, while a configuration is joint, also one of `outgoing`.
Both halves are tuples in configuration order, so no result depends on the order of a set.

A configuration without voters decides nothing. Turned down: letting an empty half agree to everything
(the neutral element of "both halves agree"); it makes a server that has no configuration yet elect itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from raftkv.types import Configuration, MemberId


class VoteOutcome(enum.Enum):
    PENDING = enum.auto()
    WON = enum.auto()
    LOST = enum.auto()


class Voters:
    """The voting half, or halves, of one configuration."""

    __slots__ = ("all", "incoming", "outgoing")

    def __init__(self, incoming: tuple[MemberId, ...], outgoing: tuple[MemberId, ...] = ()) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.all = incoming + tuple(member_id for member_id in outgoing if member_id not in incoming)

    @classmethod
    def of(cls, configuration: Configuration) -> Voters:
        return cls(
            tuple(member.member_id for member in configuration.voters),
            tuple(member.member_id for member in configuration.voters_outgoing),
        )

    def agreed_position(self, position_of: Callable[[MemberId], int]) -> int:
        """The largest position that a majority of every half has reached; 0 without voters."""
        position = _agreed_by(self.incoming, position_of)
        if self.outgoing:
            position = min(position, _agreed_by(self.outgoing, position_of))
        return position

    def is_quorum(self, has: Callable[[MemberId], bool]) -> bool:
        return self.agreed_position(lambda member_id: 1 if has(member_id) else 0) == 1

    def vote_outcome(self, votes: Mapping[MemberId, bool]) -> VoteOutcome:
        """Won with a majority in every half; lost once some half can no longer reach one."""
        if self.agreed_position(lambda member_id: 1 if votes.get(member_id) else 0) == 1:
            return VoteOutcome.WON
        if self.agreed_position(lambda member_id: 1 if votes.get(member_id, True) else 0) == 1:
            return VoteOutcome.PENDING
        return VoteOutcome.LOST


def _agreed_by(voters: tuple[MemberId, ...], position_of: Callable[[MemberId], int]) -> int:
    if not voters:
        return 0
    positions = sorted(map(position_of, voters))
    return positions[(len(positions) - 1) // 2]
