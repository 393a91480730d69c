"""Small stories that several tests begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftkv.raft.messages import AppendEntries, AppendEntriesReply
from raftkv.types import MemberId
from tests.raft.harness import Server, leader_alone


def leader_with_log(log: Sequence[int], term: int, voters: Iterable[MemberId] = (1, 2, 3), **knobs: object) -> Server:
    """A leader of `term` + 1 whose no-op is committed and taken by everybody; the outbox is empty."""
    voters = tuple(voters)
    server = leader_alone(1, voters, log=log, term=term, **knobs)
    for _ in range(3):
        server.accept_appends(voters)
    assert server.commit_index == len(log) + 1
    server.outbox.clear()
    return server


def replicate(leader: Server, follower: Server, limit: int = 500) -> int:
    """Carry messages between the two until the follower has everything; returns how often it refused."""
    refusals = 0
    for _ in range(limit):
        requests = [request for request in leader.take(AppendEntries) if request.recipient == follower.member_id]
        if not requests:
            if leader.status.progress[follower.member_id].match_index == leader.status.last_index:
                return refusals
            leader.tick()
        for request in requests:
            follower.step(request)
        for reply in follower.take(AppendEntriesReply):
            refusals += not reply.success
            leader.step(reply)
    raise AssertionError(f"the logs do not come together: {leader.log_terms()} and {follower.log_terms()}")
