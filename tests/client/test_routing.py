"""The client's policy alone: which server is asked, and when a call is tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest

from raftkv.client import calls
from raftkv.client.replies import Answer
from raftkv.client.routing import Call, NoAnswer, NotSent, Pause, Result, Servers, base_url, key_target, route
from raftkv.errors import InvalidInput, KeyNotFound, NoLeader, NotLeader, OutcomeUnknown, Unavailable

WRITE = calls.put("k", "v")
READ = calls.get("k", None)
OK = Answer(200, {}, b'{"data":{"key":"k","value":"v"}}')


def error(status: int, code: str, outcome: str = "rejected", **more: str) -> Answer:
    return Answer(status, {}, json.dumps({"error": code, "code": code, "outcome": outcome, **more}).encode())


class Driver:
    """Carries out a route against written-down results, on a clock of its own."""

    def __init__(self, call: Call, servers: str, timeout_seconds: float = 10.0) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.paused_seconds = 0.0
        self.servers = Servers(servers)
        self._steps = route(call, self.servers, timeout_seconds, lambda: self.now)

    def run(self, *results: Result) -> Answer:
        """Results are given to attempts in turn, the last one for ever."""
        remaining = list(results)
        return self.run_with(lambda _server: remaining.pop(0) if len(remaining) > 1 else remaining[0])

    def run_with(self, answer: Callable[[str], Result]) -> Answer:
        """Results are computed from the server that is asked; an attempt takes a millisecond."""
        result: Result = None
        while True:
            try:
                step = self._steps.send(result)
            except StopIteration as stop:
                return cast("Answer", stop.value)
            if isinstance(step, Pause):
                self.now += step.seconds
                self.paused_seconds += step.seconds
                result = None
            else:
                self.now += 0.001
                server = step.server.removeprefix("http://")
                self.asked.append(server)
                result = answer(server)


def test_the_first_answer_is_returned() -> None:
    driver = Driver(WRITE, "a:1,b:2")
    assert driver.run(OK) is OK
    assert driver.asked == ["a:1"]


@pytest.mark.parametrize("call", [WRITE, READ], ids=["write", "read"])
def test_a_server_that_cannot_be_connected_to_is_passed_over(call: Call) -> None:
    driver = Driver(call, "a:1,b:2,c:3")
    driver.run(NotSent("refused"), NotSent("refused"), OK)
    assert driver.asked == ["a:1", "b:2", "c:3"]
    assert driver.paused_seconds == 0
    assert driver.servers.preferred == "http://c:3"


def test_a_write_without_an_answer_is_never_sent_again() -> None:
    driver = Driver(WRITE, "a:1,b:2")
    with pytest.raises(OutcomeUnknown, match="may have happened"):
        driver.run(NoAnswer("the connection broke"), OK)
    assert driver.asked == ["a:1"]


@pytest.mark.parametrize(
    "answer",
    [error(504, "outcome_unknown", "unknown"), Answer(502, {}, b"<html>"), error(500, "storage_error", "")],
    ids=["said so", "not ours", "does not say"],
)
def test_a_write_that_may_have_happened_is_never_sent_again(answer: Answer) -> None:
    driver = Driver(WRITE, "a:1,b:2")
    with pytest.raises(OutcomeUnknown):
        driver.run(answer, OK)
    assert driver.asked == ["a:1"]


def test_a_read_without_an_answer_is_tried_elsewhere() -> None:
    driver = Driver(READ, "a:1,b:2")
    driver.run(NoAnswer("no answer in time"), OK)
    assert driver.asked == ["a:1", "b:2"]


@pytest.mark.parametrize("code", ["no_leader", "not_ready", "overloaded", "shutting_down", "unavailable"])
def test_a_write_that_was_surely_not_taken_is_tried_again(code: str) -> None:
    driver = Driver(WRITE, "a:1,b:2")
    assert driver.run(error(503, code), OK) is OK
    assert driver.asked == ["a:1", "b:2"]


def test_waiting_grows_once_everyone_was_asked_and_ends_with_the_last_error() -> None:
    driver = Driver(WRITE, "a:1,b:2", timeout_seconds=5.0)
    with pytest.raises(NoLeader):
        driver.run(error(503, "no_leader"))
    assert 3.0 < driver.now <= 4.0
    assert 10 < len(driver.asked) < 60


def test_a_leader_that_is_named_is_asked_next_though_it_was_not_listed() -> None:
    driver = Driver(WRITE, "a:1,b:2")
    driver.run(error(422, "not_leader", leader="c:3"), OK)
    assert driver.asked == ["a:1", "c:3"]
    assert driver.servers.preferred == "http://c:3"


def test_a_redirect_is_followed_to_the_same_path_elsewhere() -> None:
    driver = Driver(WRITE, "a:1,b:2")
    driver.run(Answer(307, {"location": "http://c:3/store"}, b""), OK)
    assert driver.asked == ["a:1", "c:3"]


@pytest.mark.parametrize("location", ["", "/store", "ftp://c:3/x"])
def test_a_redirect_to_nowhere_is_an_error(location: str) -> None:
    driver = Driver(READ, "a:1")
    with pytest.raises(Exception, match="answered 307"):
        driver.run(Answer(307, {"location": location}, b""))
    assert driver.asked == ["a:1"]


def test_servers_that_name_each_other_as_leader_end_at_the_timeout() -> None:
    driver = Driver(WRITE, "a:1,b:2", timeout_seconds=2.0)
    turn = {"a:1": "b:2", "b:2": "a:1"}
    with pytest.raises(NotLeader):
        driver.run_with(lambda server: error(422, "not_leader", leader=turn[server]))
    assert driver.now >= 1.0
    assert len(driver.asked) < 40


def test_a_missing_key_is_no_reason_to_ask_others() -> None:
    driver = Driver(READ, "a:1,b:2")
    with pytest.raises(KeyNotFound) as caught:
        driver.run(error(404, "key_not_found"))
    assert caught.value.key == "k"
    assert driver.asked == ["a:1"]


def test_no_server_at_all_is_unavailable_and_says_why() -> None:
    with pytest.raises(Unavailable, match=r"a:1: cannot connect \(refused\)"):
        Driver(WRITE, "a:1", timeout_seconds=0.5).run(NotSent("cannot connect (refused)"))


def test_the_error_is_what_a_server_said_and_names_those_that_were_not_reached() -> None:
    answers: dict[str, Result] = {"a:1": error(503, "no_leader"), "b:2": NotSent("cannot connect (refused)")}
    with pytest.raises(NoLeader) as caught:
        Driver(WRITE, "a:1,b:2", timeout_seconds=2.0).run_with(lambda server: answers[server])
    assert str(caught.value) == "no_leader (http://b:2: cannot connect (refused))"


def test_all_servers_that_cannot_be_reached_are_named() -> None:
    with pytest.raises(Unavailable) as caught:
        Driver(READ, "a:1,b:2", timeout_seconds=2.0).run(NotSent("cannot connect (refused)"))
    assert str(caught.value) == "http://a:1: cannot connect (refused); http://b:2: cannot connect (refused)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("db1:1", "http://db1:1"), ("http://db1:1/", "http://db1:1"), ("https://db1", "https://db1"), ("[::1]:5", "http://[::1]:5")],
)  # fmt: skip
def test_servers_are_addresses_or_urls(given: str, expected: str) -> None:
    assert base_url(given) == expected


@pytest.mark.parametrize(
    "given", ["ftp://x:1", "http://db1:1/path", "http://", "db1:1?x=1", "db1", "db1:", "db1:x", "db1:70000"]
)
def test_what_is_no_server_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="is not a server"):
        base_url(given)
    with pytest.raises(InvalidInput, match="no server was given"):
        Servers(" , ")


@pytest.mark.parametrize(
    ("key", "target"),
    [("foo", "/store/foo"), ("a/b c", "/store/a%2Fb%20c"), ("..", "/store/%2E%2E"), ("ü?#%", "/store/%C3%BC%3F%23%25")],
)
def test_every_key_is_one_path_segment(key: str, target: str) -> None:
    assert key_target(key) == target


def test_no_write_is_started_shortly_before_the_deadline() -> None:
    driver = Driver(WRITE, "a:1,b:2", timeout_seconds=4.0)
    started: list[float] = []

    def answer(_server: str) -> Result:
        started.append(driver.now)
        driver.now += 0.3
        return error(503, "no_leader")

    with pytest.raises(NoLeader):
        driver.run_with(answer)
    assert 2.0 < max(started) <= 3.0
