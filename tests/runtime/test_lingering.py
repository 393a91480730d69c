"""Whom a node stays connected to: its members, those just removed, and for a while whoever spoke to it."""

from __future__ import annotations

from collections.abc import Mapping

from raftkv.runtime.membership.lingering import ACQUAINTANCE_S, ACQUAINTANCES_MAX_COUNT, LINGER_S, LingeringPeers
from raftkv.types import Configuration, Member

OWN = 1


def members(*numbers: int) -> tuple[Member, ...]:
    return tuple(Member(number, f"node{number}", f"host{number}:1") for number in numbers)


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.told: list[dict[int, str]] = []
        self.peers = LingeringPeers(self._set_peers, lambda: self.now_s)

    def _set_peers(self, addresses: Mapping[int, str]) -> None:
        self.told.append(dict(addresses))

    def configure(self, *numbers: int) -> None:
        self.peers.update(Configuration(voters=members(*numbers)), OWN)

    def connected(self) -> set[int]:
        self.peers.expire()
        return set(self.told[-1])


def test_a_node_connects_to_all_members_but_itself() -> None:
    world = World()
    world.configure(1, 2, 3)
    assert world.told == [{2: "host2:1", 3: "host3:1"}]


def test_learners_and_outgoing_voters_count_too() -> None:
    world = World()
    configuration = Configuration(members(1, 2), members(3), voters_outgoing=members(1, 4))
    world.peers.update(configuration, OWN)
    assert world.connected() == {2, 3, 4}


def test_a_removed_member_is_still_reached_for_a_while_so_that_it_hears_of_it() -> None:
    world = World()
    world.configure(1, 2, 3)
    world.configure(1, 2)
    world.now_s = LINGER_S - 0.001
    assert world.connected() == {2, 3}
    world.now_s = LINGER_S
    assert world.connected() == {2}


def test_a_member_that_comes_back_stays() -> None:
    world = World()
    world.configure(1, 2, 3)
    world.configure(1, 2)
    world.configure(1, 2, 3)
    world.now_s = 2 * LINGER_S
    assert world.connected() == {2, 3}


def test_a_node_that_is_removed_itself_can_still_answer_the_others() -> None:
    world = World()
    world.configure(1, 2, 3)
    world.configure(2, 3)
    assert world.connected() == {2, 3}


def test_whoever_speaks_to_this_node_can_be_answered_although_it_is_not_known() -> None:
    """The leader of a configuration that this node has yet to get."""
    world = World()
    world.configure(1, 2)
    world.peers.meet(9, "host9:1")
    assert world.told[-1] == {2: "host2:1", 9: "host9:1"}
    world.now_s = ACQUAINTANCE_S - 0.001
    assert world.connected() == {2, 9}
    world.now_s = ACQUAINTANCE_S
    assert world.connected() == {2}


def test_meeting_again_prolongs_and_a_new_address_counts_at_once() -> None:
    world = World()
    world.configure(1)
    world.peers.meet(9, "host9:1")
    tellings = len(world.told)
    world.now_s = ACQUAINTANCE_S - 1
    world.peers.meet(9, "host9:1")
    assert len(world.told) == tellings, "nothing has changed"
    world.now_s = ACQUAINTANCE_S + 1
    assert world.connected() == {9}
    world.peers.meet(9, "elsewhere:1")
    assert world.told[-1] == {9: "elsewhere:1"}


def test_acquaintances_are_bounded_and_those_who_were_first_stay() -> None:
    world = World()
    world.configure(1, 2)
    for number in range(100, 100 + 10 * ACQUAINTANCES_MAX_COUNT):
        world.peers.meet(number, f"host{number}:1")
    assert world.connected() == {2, *range(100, 100 + ACQUAINTANCES_MAX_COUNT)}


def test_who_says_no_address_and_who_is_a_member_changes_nothing() -> None:
    world = World()
    world.configure(1, 2)
    world.peers.meet(9, "")
    world.peers.meet(2, "liar:1")
    assert world.told == [{2: "host2:1"}]


def test_an_acquaintance_that_becomes_a_member_does_not_expire() -> None:
    world = World()
    world.configure(1, 2)
    world.peers.meet(3, "host3:1")
    world.configure(1, 2, 3)
    world.now_s = 2 * ACQUAINTANCE_S
    assert world.connected() == {2, 3}
