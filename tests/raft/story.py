"""Small stories that several tests begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftkv.raft.messages import AppendEntries, AppendEntriesReply
from raftkv.types import Configuration, MemberId, Role
from tests.raft.harness import Server, alone, leader_alone


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


def ids(value: Configuration) -> tuple[set[int], set[int], set[int]]:
    """(voters, outgoing voters, learners)."""
    return (
        {m.member_id for m in value.voters},
        {m.member_id for m in value.voters_outgoing},
        {m.member_id for m in value.learners},
    )


def acknowledge(server: Server, *followers: int, upto: int | None = None) -> None:
    """Followers report that they hold the leader's log up to `upto` (all of it when None)."""
    last = upto if upto is not None else server.status.last_index
    for follower in followers:
        server.step(AppendEntriesReply(server.term, follower, server.member_id, True, last, 0, 0, 0, 0))


def paper(**more: object) -> Server:
    """Server 1 of 1, 2, 3, as in the paper: no pre-vote."""
    return alone(pre_vote=False, **more)  # type: ignore[arg-type]


def candidate(**more: object) -> Server:
    server = paper(**more)
    server.campaign()
    assert server.role is Role.CANDIDATE
    return server
