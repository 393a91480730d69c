"""What keys and values are, for inputs that nobody thought of."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.api.service import KeyService
from raftkv.errors import InvalidInput
from tests.api.fake_node import FakeNode, FakeSettings

SERVICE = KeyService(FakeNode(), FakeSettings())

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100).filter(
    lambda text: text.strip() and len(text.strip().encode()) <= 512
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=20,
)


@given(texts, values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_json_value_is_kept_as_it_was_sent(
    key: str, value: object, ascii_only: bool, indent: int | str | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    body = json.dumps({"key": key, "value": "@"}, ensure_ascii=ascii_only).replace('"@"', text, 1)
    if '"@"' in json.dumps(key):
        return
    put = SERVICE.put_command(body.encode())
    assert (put.key, put.value) == (key.strip().encode(), text.encode())


@given(texts)
def test_any_key_can_be_named_in_a_path(key: str) -> None:
    for safe in ("", "/"):
        quoted = urllib.parse.quote(key, safe=safe).encode()
        if quoted.endswith(b"/"):
            quoted += b"/"
        assert SERVICE.key_from_path(quoted) == key.strip().encode()


@given(st.binary(max_size=60) | texts.map(str.encode))
def test_a_value_is_taken_exactly_when_it_is_json(raw: bytes) -> None:
    body = b'{"key":"k","value":' + raw + b"}"
    try:
        text = raw.decode()
        json.loads(text, parse_constant=_refuse)
        is_json = text.strip(" \t\r\n") != "" and not _has_lone_surrogate(json.loads(text))
    except ValueError:
        is_json = False
    try:
        put = SERVICE.put_command(body)
    except InvalidInput:
        assert not is_json
    else:
        # raw may also close the object and go on with further fields; then the whole body is JSON instead
        assert is_json or isinstance(json.loads(body), dict)
        assert json.loads(put.value) == json.loads(body)["value"]


def _refuse(name: str) -> None:
    raise ValueError(name)


def _has_lone_surrogate(value: object) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False))


@given(st.binary(max_size=80))
def test_no_path_is_an_error_of_ours(path: bytes) -> None:
    try:
        key = SERVICE.key_from_path(path)
    except InvalidInput:
        return
    assert key.decode().strip() == key.decode() != ""


@given(st.binary(max_size=80))
def test_no_body_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        SERVICE.put_command(body)


@given(st.binary(max_size=40))
def test_no_query_is_an_error_of_ours(query: bytes) -> None:
    assert SERVICE.consistency(query) == "local"
    with pytest.raises(InvalidInput):
        SERVICE.write_mode(query + b"&write_mode=x", b"")
