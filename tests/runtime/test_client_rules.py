"""What a leader asks of forwarded commands is what the client interfaces promise, no less and no more."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.api.port import NodePort
from raftkv.api.service import KeyService
from raftkv.errors import InvalidInput
from raftkv.kv import Command, Compact, Delete, Put
from raftkv.runtime import Settings
from raftkv.runtime.clients.rules import ClientRules

RULES = ClientRules(max_key_bytes=10, max_value_bytes=20)

GOOD: dict[str, Command] = {
    "a put": Put(b"k", b'{"a":[1,null]}'),
    "a key of the largest size": Put(b"k" * 10, b"1"),
    "a value of the largest size": Put(b"k", b'"' + b"v" * 18 + b'"'),
    "a key beyond ASCII": Put("schlüssel".encode(), b"1"),
    "a value beyond ASCII": Put(b"k", '"schlüssel"'.encode()),
    "white space around a value": Put(b"k", b" 1 "),
    "a delete": Delete(b"k"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_a_client_can_ask_for_is_taken(case: str) -> None:
    assert RULES.refusal_of(GOOD[case]) is None


BAD: dict[str, tuple[Command, str]] = {
    "a put without a key": (Put(b"", b"1"), "key is empty"),
    "a delete without a key": (Delete(b""), "key is empty"),
    "a key of white space": (Put(b" \t", b"1"), "white space"),
    "white space around a key": (Delete(b"k "), "white space"),
    "a key that is no text": (Put(b"\xff\xfe", b"1"), "not UTF-8"),
    "a delete of a key that is no text": (Delete(b"\xff\xfe"), "not UTF-8"),
    "a surrogate in a key": (Put(b"\xed\xa0\x80", b"1"), "not UTF-8"),
    "a key that is too large": (Put(b"k" * 11, b"1"), "leader's limits"),
    "a delete of a key that is too large": (Delete(b"k" * 11), "leader's limits"),
    "a value that is too large": (Put(b"k", b"1" * 21), "leader's limits"),
    "no value": (Put(b"k", b""), "not JSON"),
    "a value of white space": (Put(b"k", b" "), "not JSON"),
    "a value that is no JSON": (Put(b"k", b"{oops}"), "not JSON"),
    "two values": (Put(b"k", b"1 2"), "not JSON"),
    "not a number": (Put(b"k", b"NaN"), "not JSON"),
    "a value that is no text": (Put(b"k", b'"\xff"'), "not JSON"),
    "a compaction": (Compact(5), "no command of a client"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_client_can_ask_for_is_refused_with_a_reason(case: str) -> None:
    command, reason = BAD[case]
    refusal = RULES.refusal_of(command)
    assert isinstance(refusal, InvalidInput)
    assert reason in str(refusal)


def test_a_value_nested_without_end_is_refused() -> None:
    refusal = ClientRules(10, 1 << 20).refusal_of(Put(b"k", b"[" * 100_000 + b"]" * 100_000))
    assert isinstance(refusal, InvalidInput)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.text(min_size=1, max_size=5).filter(lambda text: text.strip() != ""), JSON)
def test_whatever_a_follower_takes_from_a_client_its_leader_takes_too(key: str, value: object) -> None:
    settings = Settings(node_id="node1", data_dir=Path("unused"))
    service = KeyService(cast(NodePort, None), settings)
    put = service.put_command(msgspec.json.encode({"key": key, "value": value}))
    rules = ClientRules(settings.max_key_bytes, settings.max_value_bytes)
    assert rules.refusal_of(put) is None
    assert rules.refusal_of(Delete(put.key)) is None
