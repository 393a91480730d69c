"""The three etcd requests that the bench sends, as gRPC frames, written out by hand.

A protobuf field is a tag (number << 3 | wire type) and its bytes; a gRPC frame is a zero byte, the
length as four bytes, and the message. That is all that is needed, so no protobuf library is.
"""

from __future__ import annotations

from collections.abc import Iterable

PUT_PATH = "/etcdserverpb.KV/Put"
RANGE_PATH = "/etcdserverpb.KV/Range"
TXN_PATH = "/etcdserverpb.KV/Txn"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _put_request(key: bytes, value: bytes) -> bytes:
    return _bytes_field(1, key) + _bytes_field(2, value)


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def put(key: bytes, value: bytes) -> bytes:
    return frame(_put_request(key, value))


def get(key: bytes, is_serializable: bool) -> bytes:
    return frame(_bytes_field(1, key) + (b"\x38\x01" if is_serializable else b""))


def put_many(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """One transaction without conditions: TxnRequest.success = [RequestOp.request_put, …]; at most 128 (etcd)."""
    operations = (_bytes_field(2, _bytes_field(2, _put_request(key, value))) for key, value in pairs)
    return frame(b"".join(operations))
