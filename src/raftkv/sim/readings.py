"""Rounds of reads: each number once in a term, none before the term's first commit, done by a majority (Thesis §6.4).

What the members' answers said when they left is the measure, not what the leader made of them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from raftkv.types import MemberId

if TYPE_CHECKING:
    from raftkv.raft import AppendEntriesReply, RaftState
    from raftkv.sim.node import SimNode


class _Progress(NamedTuple):
    """Of one leader, when it was looked at last."""

    term: int
    configuration_index: int
    confirmed: int


class Readings:
    def __init__(self, violation: Callable[[str], None]) -> None:
        self._violation = violation
        self._answered: dict[tuple[MemberId, int], dict[MemberId, int]] = collections.defaultdict(dict)
        """(leader, term) -> the highest round that each member has answered."""
        self._progress: dict[MemberId, _Progress] = {}

    def answered(self, reply: AppendEntriesReply) -> None:
        rounds = self._answered[reply.recipient, reply.term]
        rounds[reply.sender] = max(rounds.get(reply.sender, 0), reply.read_round)

    def check(self, node: SimNode, state: RaftState) -> None:
        leading = state.leading
        if leading is None:
            return
        name = f"{node.node_id} in term {state.current_term}"
        if leading.read_round and state.commit_index < leading.term_start_index:
            self._violation(f"{name} opens a round of reads before anything of its term is committed")
        confirmed = leading.read_round
        if leading.rounds:
            confirmed = leading.rounds[0].number - 1
            if len(leading.rounds) > 1 and leading.rounds[-2].number >= leading.rounds[-1].number:
                self._violation(f"{name} uses round {leading.rounds[-1].number} of reads twice")
        now = _Progress(state.current_term, state.configuration_index, confirmed)
        before, self._progress[state.member_id] = self._progress.get(state.member_id, now), now
        if before[:2] == now[:2] and before.confirmed < confirmed:
            self._check_majority(state, confirmed, name)

    def _check_majority(self, state: RaftState, confirmed: int, name: str) -> None:
        answered = self._answered[state.member_id, state.current_term]
        for voters in (state.configuration.voters, state.configuration.voters_outgoing):
            count = sum(
                voter.member_id == state.member_id or answered.get(voter.member_id, 0) >= confirmed for voter in voters
            )
            if voters and count <= len(voters) // 2:
                self._violation(f"{name} takes round {confirmed} of reads as done by {count} of {len(voters)} voters")
