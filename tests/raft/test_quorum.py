"""Majorities against brute force: every answer of `raftkv.raft.quorum` is recomputed from the definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft.quorum import VoteOutcome, Voters
from tests.raft.words import configuration


def majorities(voters: tuple[int, ...]) -> list[set[int]]:
    """Every subset with more than half of the voters."""
    return [
        set(subset)
        for size in range(len(voters) // 2 + 1, len(voters) + 1)
        for subset in itertools.combinations(voters, size)
    ]


def is_quorum_by_definition(halves: list[tuple[int, ...]], agreeing: set[int]) -> bool:
    """Raft §6: a majority of each configuration. A configuration without voters decides nothing."""
    return bool(halves) and all(any(majority <= agreeing for majority in majorities(half)) for half in halves)


def halves_of(incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [incoming, outgoing] if outgoing else [incoming]


ids = st.lists(st.integers(1, 7), unique=True, max_size=5).map(tuple)
some_ids = st.lists(st.integers(1, 7), unique=True, min_size=1, max_size=5).map(tuple)


def test_any_two_majorities_share_a_server() -> None:
    """§5.2 and §6, why it all works: checked for every size up to seven, and for joint against both of its halves."""
    for size in range(1, 8):
        voters = tuple(range(1, size + 1))
        for one, other in itertools.combinations(majorities(voters), 2):
            assert one & other


@pytest.mark.parametrize("size", range(1, 8))
def test_quorums_of_one_configuration(size: int) -> None:
    """§5.2: every subset of clusters of one to seven servers."""
    voters = tuple(range(1, size + 1))
    subject = Voters(voters)
    for bits in range(1 << size):
        agreeing = {voter for voter in voters if bits >> (voter - 1) & 1}
        assert subject.is_quorum(agreeing.__contains__) is is_quorum_by_definition([voters], agreeing)


def test_quorums_of_joint_configurations() -> None:
    """§6: every pair of halves of up to three servers of four, every subset."""
    subsets = [subset for size in range(1, 4) for subset in itertools.combinations((1, 2, 3, 4), size)]
    for incoming, outgoing in itertools.product(subsets, repeat=2):
        subject = Voters(incoming, outgoing)
        for bits in range(16):
            agreeing = {voter for voter in (1, 2, 3, 4) if bits >> (voter - 1) & 1}
            expected = is_quorum_by_definition([incoming, outgoing], agreeing)
            assert subject.is_quorum(agreeing.__contains__) is expected


@given(incoming=some_ids, outgoing=ids, positions=st.dictionaries(st.integers(1, 7), st.integers(0, 9)))
def test_the_agreed_position_is_the_largest_that_a_quorum_has_reached(
    incoming: tuple[int, ...], outgoing: tuple[int, ...], positions: dict[int, int]
) -> None:
    """Figure 2, leaders, rule 4, and §6: by trying every position from the top."""
    halves = halves_of(incoming, outgoing)

    def position_of(voter: int) -> int:
        return positions.get(voter, 0)

    expected = next(
        candidate
        for candidate in range(9, -1, -1)
        if candidate == 0
        or is_quorum_by_definition(halves, {voter for voter in range(1, 8) if position_of(voter) >= candidate})
    )
    assert Voters(incoming, outgoing).agreed_position(position_of) == expected


@given(incoming=some_ids, outgoing=ids, votes=st.dictionaries(st.integers(1, 9), st.booleans()))
def test_an_election_is_won_lost_or_open(
    incoming: tuple[int, ...], outgoing: tuple[int, ...], votes: dict[int, bool]
) -> None:
    """§5.2: won with a quorum of grants; lost when even all missing votes could not make one."""
    halves = halves_of(incoming, outgoing)
    granted = {voter for voter, vote in votes.items() if vote}
    possible = granted | (set(incoming + outgoing) - set(votes))
    expected = (
        VoteOutcome.WON
        if is_quorum_by_definition(halves, granted)
        else VoteOutcome.PENDING
        if is_quorum_by_definition(halves, possible)
        else VoteOutcome.LOST
    )
    assert Voters(incoming, outgoing).vote_outcome(votes) is expected


@given(incoming=some_ids, outgoing=some_ids, agreeing=st.sets(st.integers(1, 7)))
@settings(max_examples=200)
def test_a_joint_quorum_overlaps_every_quorum_of_both_configurations(
    incoming: tuple[int, ...], outgoing: tuple[int, ...], agreeing: set[int]
) -> None:
    """§6: why no two leaders can be elected while the configuration changes."""
    if Voters(incoming, outgoing).is_quorum(agreeing.__contains__):
        for half in (incoming, outgoing):
            assert all(agreeing & majority for majority in majorities(half))


def test_a_configuration_without_voters_decides_nothing() -> None:
    """A server that has no configuration yet must not elect itself."""
    nobody = Voters(())
    assert not nobody.is_quorum(lambda _: True)
    assert nobody.agreed_position(lambda _: 9) == 0
    assert nobody.vote_outcome({1: True}) is not VoteOutcome.WON


def test_voters_are_read_from_a_configuration() -> None:
    """Learners, present and future, have no vote; an outgoing voter still has."""
    joint = configuration((1, 2), (5,), outgoing=(2, 3), learners_next=(3,))
    subject = Voters.of(joint)
    assert (subject.incoming, subject.outgoing) == ((1, 2), (2, 3))
    assert set(subject.all) == {1, 2, 3}
