"""The calls of the HTTP interface, as values: one function a call, used by both clients."""

from __future__ import annotations

import json
from typing import Any

from raftkv.client.routing import Call, key_target
from raftkv.errors import InvalidInput
from raftkv.types import Consistency


def put(key: str, value: Any) -> Call:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the value cannot be written as JSON: {error}") from None
    return put_json(key, text)


def put_json(key: str, json_text: str) -> Call:
    try:
        json.loads(json_text)
    except ValueError as error:
        raise InvalidInput(f"the value is not JSON: {error}") from None
    body = f'{{"key":{json.dumps(key)},"value":{json_text}}}'
    return Call("POST", "/store", _encoded(body), is_write=True, key=key)


def get(key: str, consistency: Consistency | str | None) -> Call:
    if not consistency:
        return Call("GET", key_target(key), key=key)
    return Call("GET", key_target(key, consistency=str(consistency)), key=key)


def delete(key: str) -> Call:
    return Call("DELETE", key_target(key), is_write=True, key=key)


def stats() -> Call:
    return Call("GET", "/raft/stats")


def join(node_id: str, raft_address: str) -> Call:
    body = json.dumps({"node_id": node_id, "raft_address": raft_address})
    return Call("POST", "/raft/join", _encoded(body), is_write=True)


def remove(node_id: str) -> Call:
    return Call("POST", "/raft/remove", _encoded(json.dumps({"node_id": node_id})), is_write=True)


def transfer(node_id: str | None) -> Call:
    body = json.dumps({"node_id": node_id} if node_id else {})
    return Call("POST", "/raft/transfer", _encoded(body), is_write=True)


def _encoded(body: str) -> bytes:
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the text cannot be sent as UTF-8: {error.reason}") from None
