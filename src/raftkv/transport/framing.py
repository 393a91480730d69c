"""Frames on the wire: a header of 13 bytes, big-endian, and a payload.

    length u32 | crc32c u32 | kind u8 | group u32 | payload (length bytes)

The checksum covers kind, group and payload. `group` is 0: it is kept for many Raft groups on one connection.
TCP's own checksum misses about one error in 65,536 and is often computed by the very card that broke the
data, so every frame carries its own, as every log record does.

Invariants: a frame is handed on whole and verified or not at all; after the first wrong byte the stream means
nothing, so the connection ends; at most one incomplete frame is kept, and never more than `max_payload_bytes`
of it. Nothing is reserved for a length that was merely announced.

Turned down: a protobuf-style varint length (slower to parse in Python, saves 3 bytes of 5,000), and
`asyncio.BufferedProtocol`, which saves a copy for frames of megabytes and costs more for small ones.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import TypeAlias

import google_crc32c

from raftkv.errors import PeerProtocolError
from raftkv.transport.stats import Traffic

HEADER = struct.Struct(">IIBI")
HEADER_BYTES = HEADER.size
MAX_HANDSHAKE_BYTES = 64 << 10
"""The largest payload that is read from a connection that has not said a valid hello."""

MAX_NODE_KIND = 0xEF
"""Kinds up to here mean what the node says; those above belong to the transport."""

FrameHandler: TypeAlias = Callable[[int, bytes], None]
"""Called with (kind, payload). May raise `PeerProtocolError` to end the connection."""

_HTTP_LENGTH = int.from_bytes(b"HTTP")
"""What an answer of an HTTP server looks like here. Far over any limit, and worth a text of its own: the two ports of
a node are easily taken for each other."""

_crc_extend = google_crc32c.extend
_PREFIX = struct.Struct(">BI")
_KIND_CRC = tuple(google_crc32c.value(_PREFIX.pack(kind, 0)) for kind in range(256))
"""The checksum of (kind, group 0), from which a payload's is continued: one call a frame instead of two."""


class FrameKind(enum.IntEnum):
    """The transport's own frames."""

    HELLO = 0xF0
    HELLO_REPLY = 0xF1
    CALL_REPLY = 0xF2
    CALL_ERROR = 0xF3
    CHUNK = 0xF4
    CHUNK_TAKEN = 0xF5
    LAST_CHUNK_SENT = 0xF6


class RefusalReason(enum.StrEnum):
    """Why a connection was ended or refused; counted by name, so these are stable."""

    OVERSIZE = "oversize"
    CHECKSUM = "checksum"
    GROUP = "group"
    HANDSHAKE = "handshake"
    VERSION = "version"
    CLUSTER = "cluster"
    RECIPIENT = "recipient"
    MEMBER = "member"
    TIMEOUT = "timeout"
    TOO_MANY = "too_many"
    UNEXPECTED = "unexpected"
    PAYLOAD = "payload"
    TLS = "tls"


class ConnectionRefusal(PeerProtocolError):
    """What came in is not ours, for `reason`; the text goes to the log and, where safe, to the other side."""

    def __init__(self, reason: RefusalReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def encode_header(kind: int, payload: bytes) -> bytes:
    """The 13 bytes that go before `payload`. The two are written one after the other, so megabytes are not copied."""
    return HEADER.pack(len(payload), _crc_extend(_KIND_CRC[kind], payload), kind, 0)


class FrameDecoder:
    """Bytes in, whole verified frames out, without I/O.

    `on_frame`, `max_payload_bytes` and `max_kind` may be changed from within `on_frame`; they hold from the next
    frame on.
    """

    __slots__ = ("_partial", "max_kind", "max_payload_bytes", "on_frame", "traffic")

    def __init__(self, max_payload_bytes: int, on_frame: FrameHandler) -> None:
        self.max_payload_bytes = max_payload_bytes
        self.max_kind = 255
        self.on_frame = on_frame
        self.traffic = Traffic()
        self._partial = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises `ConnectionRefusal` (or what `on_frame` raises); the decoder is not usable after that."""
        traffic = self.traffic
        traffic.bytes_received += len(data)
        offset = self._complete_partial(data) if self._partial else 0
        stop = len(data)
        frame_count = 0
        while stop - offset >= HEADER_BYTES:
            length, crc, kind, group = HEADER.unpack_from(data, offset)
            if length > self.max_payload_bytes or group or kind > self.max_kind:
                self._refuse_header(length, group, kind)
            start = offset + HEADER_BYTES
            end = start + length
            if end > stop:
                break
            payload = data[start:end]
            if _crc_extend(_KIND_CRC[kind], payload) != crc:
                raise ConnectionRefusal(RefusalReason.CHECKSUM, "a frame's checksum is wrong")
            offset = end
            frame_count += 1
            self.on_frame(kind, payload)
        if offset < stop:
            self._partial += memoryview(data)[offset:]
        traffic.frames_received += frame_count

    def _complete_partial(self, data: bytes) -> int:
        """Give the incomplete frame what it lacks, hand it on if that completes it; return how much of `data` it took.

        Only the missing bytes are added, so a frame of megabytes is appended to once per read and copied
        out once, and whole frames behind it are never moved at all.
        """
        partial = self._partial
        taken = 0
        if len(partial) < HEADER_BYTES:
            taken = HEADER_BYTES - len(partial)
            partial += data[:taken]
            if len(partial) < HEADER_BYTES:
                return len(data)
        header: tuple[int, int, int, int] = HEADER.unpack_from(partial)
        length, crc, kind, group = header
        if length > self.max_payload_bytes or group or kind > self.max_kind:
            self._refuse_header(length, group, kind)
        missing = HEADER_BYTES + length - len(partial)
        with memoryview(data) as view:
            partial += view[taken : taken + missing]
        if len(partial) < HEADER_BYTES + length:
            return len(data)
        with memoryview(partial) as whole:
            payload = bytes(whole[HEADER_BYTES:])
        self._partial = bytearray()
        if _crc_extend(_KIND_CRC[kind], payload) != crc:
            raise ConnectionRefusal(RefusalReason.CHECKSUM, "a frame's checksum is wrong")
        self.traffic.frames_received += 1
        self.on_frame(kind, payload)
        return taken + missing

    def _refuse_header(self, length: int, group: int, kind: int) -> None:
        if length == _HTTP_LENGTH:
            text = "the other side speaks HTTP: that is the HTTP port of a node, perhaps; its Raft port is needed"
            raise ConnectionRefusal(RefusalReason.OVERSIZE, text)
        if length > self.max_payload_bytes:
            text = f"a frame announces {length} bytes, the limit here is {self.max_payload_bytes}"
            raise ConnectionRefusal(RefusalReason.OVERSIZE, text)
        if group:
            raise ConnectionRefusal(
                RefusalReason.GROUP, f"a frame is for Raft group {group}, this node has only group 0"
            )
        raise ConnectionRefusal(RefusalReason.UNEXPECTED, f"unexpected frame of kind {kind}")
