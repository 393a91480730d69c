"""Any key can be read back, or is refused; any JSON value comes back as it was sent."""

from __future__ import annotations

import urllib.parse

import pytest

from tests.e2e.curl import Answer, curl
from tests.e2e.node import Node

KEYS = [
    *("a/b/c", "/lead", "trail/", "a//b", "..", "a/../b", "_raft/x"),
    *("with space", "ключ-键-🔑", "100%", "%41", "a?b=c&d", "#hash", "+"),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_read_back_by_its_percent_encoding(lone_node: Node, key: str) -> None:
    path = urllib.parse.quote(key, safe="")
    assert lone_node.store(key, key).status == 200
    assert lone_node.fetch(path).data == {"key": key, "value": key}
    assert lone_node.delete(path).data == {"key": key, "value": None}
    assert lone_node.fetch(path).status == 404


def test_a_key_with_slashes_is_read_back_as_it_stands(lone_node: Node) -> None:
    assert lone_node.store("config/db/host", "h").status == 200
    assert lone_node.fetch("config/db/host").data["value"] == "h"


def test_a_key_that_is_too_long_is_refused_and_not_stored(lone_node: Node) -> None:
    longest = "k" * 256
    assert lone_node.store(longest, 1).status == 200
    assert lone_node.fetch(longest).data["value"] == 1
    for key in (longest + "k", "é" * 129, "k" * 66_000):
        assert lone_node.store(key, 1).status == 413, "the limit counts bytes"


def test_one_trailing_slash_is_accepted(lone_node: Node) -> None:
    assert curl("POST", lone_node.address, "/store/", {"key": "slash", "value": 1}).status == 200
    assert curl("GET", lone_node.address, "/store/slash/").data["value"] == 1
    assert curl("GET", lone_node.address, "/raft/stats/").status == 200


def test_keys_are_trimmed(lone_node: Node) -> None:
    assert lone_node.store("  trimmed\t", 1).data["key"] == "trimmed"
    assert lone_node.fetch("trimmed").data["value"] == 1


VALUES = [
    "9007199254740993",
    "12345678901234567890",
    "123456789012345678901234567890123456789012345678901234567890",
    "1e400",
    "-0",
    "0.1000000000000000055511151231257827",
    "1.0",
    '"\\u00e9\\ud83d\\udd11"',
    '"é🔑"',
    '{"b": 1,  "a": [1, 2.50, null, true, {}], "a2": ""}',
    "null",
    "[]",
    '""',
]


@pytest.mark.parametrize("text", VALUES)
def test_a_value_comes_back_as_it_was_sent(lone_node: Node, text: str) -> None:
    body = f'{{"key": "exact", "value": {text}}}'.encode()
    for answer in (
        curl("POST", lone_node.address, "/store", body),
        lone_node.fetch("exact"),
        lone_node.fetch_linearizable("exact"),
    ):
        assert answer.status == 200, answer
        assert text.encode() in answer.body


def test_the_fields_may_come_in_any_order(lone_node: Node) -> None:
    assert curl("POST", lone_node.address, "/store", b'{"value":{"x":1},"key":"order"}').status == 200
    assert lone_node.fetch("order").data["value"] == {"x": 1}


def is_clean_error(answer: Answer) -> bool:
    return 400 <= answer.status < 500 and bool(answer.error) and answer.outcome == "rejected"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"key":"k"}',
        b'{"value":1}',
        b'{"key":1,"value":1}',
        b'{"key":null,"value":1}',
        b'{"key":"","value":1}',
        b'{"key":"  ","value":1}',
        b'{"key":"k","value":}',
        b'{"key":"k","value":01}',
        b'{"key":"k","value":NaN}',
        b'{"key":"k","value":1}x',
        b'{"key":"\xff","value":1}',
        b'{"key":"k","value":"\xff"}',
    ],
)
def test_a_bad_body_is_an_error_in_json(lone_node: Node, body: bytes) -> None:
    answer = curl("POST", lone_node.address, "/store", body)
    assert is_clean_error(answer), answer
    assert lone_node.fetch("k").status == 404


def test_a_wrong_content_type_is_refused(lone_node: Node) -> None:
    body = {"key": "k", "value": 1}
    answer = curl("POST", lone_node.address, "/store", body, headers=[("Content-Type", "text/plain")])
    assert answer.status == 415
    assert is_clean_error(answer)


def test_a_missing_key_is_404_and_named(lone_node: Node) -> None:
    answer = lone_node.fetch("no-such-key")
    assert answer.status == 404
    assert "no-such-key" in answer.error


def test_deleting_a_missing_key_is_a_success(lone_node: Node) -> None:
    assert lone_node.delete("never-was").data == {"key": "never-was", "value": None}


def test_an_unknown_route_is_an_error_in_json(lone_node: Node) -> None:
    assert is_clean_error(curl("GET", lone_node.address, "/nowhere"))
    assert curl("PATCH", lone_node.address, "/store/foo", {"value": 1}).status == 405
