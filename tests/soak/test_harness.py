"""The fault suite itself: that its network does what it says, and that its verdict can be "failed"."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from raftkv.sim.history import Kind, Operation
from raftkv.transport import parse_address
from raftkv.transport.contract import PeerIdentity
from raftkv.transport.framing import FrameKind, encode_header
from raftkv.transport.handshake import Purpose, encode_hello
from tests.soak import plan
from tests.soak.clients import VALUE_SIZES, Record, name_of, value_named
from tests.soak.proxy import ProxyNetwork
from tests.soak.revisions import Sight, What, problems_with
from tests.soak.roads import HELD, REFUSED, Condition
from tests.soak.verdict import MINIMUM_PER_MINUTE, judge, lacking

PATIENCE_S = 10.0
SHORT_S = 0.2


class Ends:
    """A connection that "a" has dialled to "b" through the network, from both ends."""

    def __init__(self, network: ProxyNetwork) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(PATIENCE_S)
            place = network.place("b", http_port=1, raft_port=listening.getsockname()[1])
            self.a = socket.create_connection(parse_address(place.raft_address), PATIENCE_S)
            payload = encode_hello(PeerIdentity(1, 1, "a"), Purpose.PEER, 2)
            hello = encode_header(FrameKind.HELLO, payload) + payload
            self.a.sendall(hello)
            self.b = listening.accept()[0]
        self.b.settimeout(PATIENCE_S)
        assert exactly(self.b, len(hello)) == hello, "the hello arrives as it was sent"

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def network() -> Iterator[ProxyNetwork]:
    network = ProxyNetwork()
    yield network
    network.close()
    assert network.failures == []


@pytest.fixture
def ends(network: ProxyNetwork) -> Iterator[Ends]:
    ends = Ends(network)
    yield ends
    ends.close()


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def silent(sock: socket.socket) -> bool:
    sock.settimeout(SHORT_S)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return False


def test_a_held_road_holds_one_direction_and_delivers_when_it_opens(network: ProxyNetwork, ends: Ends) -> None:
    network.impose({("a", "b"): HELD})

    ends.a.sendall(b"there")
    ends.b.sendall(b"back")

    assert ends.a.recv(9) == b"back"
    assert silent(ends.b)
    network.heal()
    assert ends.b.recv(9) == b"there"
    assert network.counts["held"] == 1


def test_a_held_road_does_not_tell_that_the_other_side_has_gone(network: ProxyNetwork, ends: Ends) -> None:
    network.impose({("b", "a"): HELD})

    ends.b.close()

    assert silent(ends.a)
    network.heal()
    assert ends.a.recv(1) == b""


def test_a_refused_road_ends_what_was_dialled_along_it(network: ProxyNetwork, ends: Ends) -> None:
    network.impose({("b", "a"): REFUSED})
    ends.a.sendall(b"on")
    assert ends.b.recv(9) == b"on", "that road is for what b dials"

    network.impose({("a", "b"): REFUSED})

    assert ended(ends.b)
    assert ended(ends.a)


def test_a_cut_may_come_in_the_middle(network: ProxyNetwork, ends: Ends) -> None:
    network.cut([("a", "b")], is_torn=True)

    ends.a.sendall(b"0123456789")

    assert exactly(ends.b, 5) == b"01234"
    assert ended(ends.b)
    assert network.counts["cut"] == 1


def test_a_delay_is_one_of_time_and_keeps_the_order(network: ProxyNetwork, ends: Ends) -> None:
    network.impose({("a", "b"): Condition(delay_s=(2 * SHORT_S, 2 * SHORT_S))})

    ends.a.sendall(b"first")

    assert silent(ends.b)
    network.heal()
    ends.a.sendall(b"second")
    assert exactly(ends.b, 11) == b"firstsecond"


@pytest.mark.parametrize(
    ("steps", "deck"), [(plan.process_steps, plan.PROCESS_DECK), (plan.network_steps, plan.NETWORK_DECK)]
)
def test_a_plan_follows_from_its_seed_and_begins_with_every_kind(
    steps: Callable[[int], Iterator[plan.Step]], deck: Sequence[plan.Kind]
) -> None:
    assert list(itertools.islice(steps(7), 50)) == list(itertools.islice(steps(7), 50))
    assert list(itertools.islice(steps(7), 50)) != list(itertools.islice(steps(8), 50))
    assert {step.kind for step in itertools.islice(steps(7), len(deck))} == set(deck)


@pytest.mark.parametrize("size", VALUE_SIZES)
def test_a_value_is_known_by_its_name_and_a_part_of_it_is_none(size: int) -> None:
    value = value_named(f"c1-17-{size}")

    assert name_of(value) == f"c1-17-{size}"
    for wrong in (value[:-1], value + value, value.replace("c1", "c2", 1), "", None, 5):
        with pytest.raises(ValueError, match="nobody wrote"):
            name_of(wrong)


def put(value: bytes, call_s: float, return_s: float) -> Operation:
    return Operation("c1", Kind.PUT, b"k", value, call_s, return_s)


def get(value: bytes | None, call_s: float, return_s: float) -> Operation:
    return Operation("c2", Kind.GET, b"k", value, call_s, return_s)


def test_an_old_read_and_the_read_of_a_value_that_was_never_written_are_found() -> None:
    fine = [put(b"1", 0, 1), put(b"2", 2, 3), get(b"2", 4, 5)]

    assert judge(Record(operations=fine, refused={b"3"}, local_values={b"1"})) == []
    assert len(judge(Record(operations=[*fine, get(b"1", 6, 7)]))) == 1
    assert judge(Record(operations=fine, refused={b"3"}, local_values={b"3"})) == ["refused, but seen: b'3'"]
    assert judge(Record(operations=fine, local_values={b"3"})) == ["written by nobody, but seen: b'3'"]


def sight(what: What, node_id: str, call_s: float, revision: int) -> Sight:
    return Sight(what, node_id, call_s, call_s + 1, revision)


def test_revisions_that_run_backwards_are_found() -> None:
    writes = [sight(What.PUT, "a", 0, 5), sight(What.PUT, "b", 0.5, 4), sight(What.DELETE, "a", 2, 6)]
    reads = [sight(What.FRESH_READ, "b", 4, 6), sight(What.LOCAL_READ, "a", 4, 2), sight(What.LOCAL_READ, "a", 6, 2)]

    assert list(problems_with(writes + reads)) == []
    for wrong in (
        sight(What.PUT, "c", 6, 6),
        sight(What.DELETE, "c", 6, 5),
        sight(What.FRESH_READ, "c", 6, 5),
        sight(What.LOCAL_READ, "b", 6, 5),
        sight(What.LOCAL_READ, "a", 6, 1),
    ):
        assert len(list(problems_with([*writes, *reads, wrong]))) == 1, wrong
    assert len(list(problems_with([*writes, sight(What.PUT, "c", 0, 5)]))) == 1, "two at one revision"


def test_a_run_in_which_too_little_happened_has_failed() -> None:
    assert lacking(MINIMUM_PER_MINUTE, seconds=60) == []
    for name, least in MINIMUM_PER_MINUTE.items():
        assert len(lacking({**MINIMUM_PER_MINUTE, name: least - 1}, seconds=60)) == 1, name
    assert len(lacking(MINIMUM_PER_MINUTE, seconds=600)) == len(MINIMUM_PER_MINUTE)
