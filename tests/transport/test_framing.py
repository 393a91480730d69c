"""The wire format: whatever the reads look like, a frame comes out whole and verified or not at all."""

from __future__ import annotations

import contextlib
import tracemalloc

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import PeerProtocolError
from raftkv.transport.framing import (
    HEADER,
    HEADER_BYTES,
    ConnectionRefusal,
    FrameDecoder,
    RefusalReason,
)
from tests.transport.raw import encode_frame

LIMIT = 4_096
frames_strategy = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20)


class Sink:
    """A decoder and what came out of it."""

    def __init__(self, max_payload_bytes: int = LIMIT) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.decoder = FrameDecoder(max_payload_bytes, lambda kind, payload: self.frames.append((kind, payload)))

    def feed_in_pieces(self, data: bytes, sizes: list[int]) -> None:
        """Reads of these sizes, over and over, until all is read."""
        start = turn = 0
        while start < len(data):
            size = sizes[turn % len(sizes)]
            self.decoder.feed(data[start : start + size])
            start += size
            turn += 1


def test_the_layout_is_the_documented_one() -> None:
    payload = b"hello"
    covered = bytes([7]) + bytes(4) + payload
    expected = (5).to_bytes(4, "big") + google_crc32c.value(covered).to_bytes(4, "big") + covered
    assert encode_frame(7, payload) == expected
    assert HEADER_BYTES == 13


@given(frames_strategy, st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_frames_survive_any_division_into_reads(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    sink = Sink()
    data = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    sink.feed_in_pieces(data, sizes)
    assert sink.frames == frames
    assert sink.decoder.traffic.frames_received == len(frames)
    assert sink.decoder.traffic.bytes_received == len(data)
    sink.decoder.feed(encode_frame(1, b"next"))
    assert sink.frames == [*frames, (1, b"next")], "something was left over"


@given(frames_strategy, st.data())
def test_a_damaged_stream_yields_a_prefix_of_what_was_sent(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(encode_frame(kind, payload) for kind, payload in [*frames, (1, b"last")]))
    position = data.draw(st.integers(0, len(stream) - 1))
    stream[position] ^= data.draw(st.integers(1, 255))
    sink = Sink()
    with contextlib.suppress(PeerProtocolError):
        sink.feed_in_pieces(bytes(stream), [data.draw(st.integers(1, len(stream)))])
    whole = [*frames, (1, b"last")]
    assert len(sink.frames) < len(whole)
    assert sink.frames == whole[: len(sink.frames)]


@given(st.binary(max_size=2_000), st.integers(1, 100))
def test_arbitrary_bytes_never_make_a_frame_that_was_not_checksummed(noise: bytes, size: int) -> None:
    sink = Sink()
    with contextlib.suppress(ConnectionRefusal):
        sink.feed_in_pieces(noise, [size])
    consumed = b"".join(encode_frame(kind, payload) for kind, payload in sink.frames)
    assert noise.startswith(consumed)


@pytest.mark.parametrize("size", [1, 12, 13, 1_000])
def test_an_oversized_frame_is_refused_from_its_header_alone(size: int) -> None:
    sink = Sink(max_payload_bytes=1_000)
    sink.feed_in_pieces(encode_frame(1, b"x" * 1_000), [size])
    assert len(sink.frames) == 1
    with pytest.raises(ConnectionRefusal, match="announces 1001 bytes, the limit here is 1000") as caught:
        sink.feed_in_pieces(encode_frame(1, b"x" * 1_001)[:HEADER_BYTES], [size])
    assert caught.value.reason is RefusalReason.OVERSIZE


def test_an_http_server_on_the_other_side_is_named() -> None:
    with pytest.raises(ConnectionRefusal, match="speaks HTTP") as caught:
        Sink().feed_in_pieces(b"HTTP/1.1 400 Bad Request\r\n\r\n", [1_000])
    assert caught.value.reason is RefusalReason.OVERSIZE


@pytest.mark.parametrize("size", [5, 1_000])
def test_another_group_is_refused(size: int) -> None:
    with pytest.raises(ConnectionRefusal, match="Raft group 9") as caught:
        Sink().feed_in_pieces(HEADER.pack(0, 0, 1, 9), [size])
    assert caught.value.reason is RefusalReason.GROUP


@pytest.mark.parametrize("size", [5, 1_000])
def test_a_wrong_checksum_is_refused(size: int) -> None:
    data = bytearray(encode_frame(1, b"payload"))
    data[-1] ^= 1
    with pytest.raises(ConnectionRefusal, match="checksum") as caught:
        Sink().feed_in_pieces(bytes(data), [size])
    assert caught.value.reason is RefusalReason.CHECKSUM


def test_an_announced_length_reserves_no_memory() -> None:
    tracemalloc.start()
    try:
        decoders = [FrameDecoder(32 << 20, lambda kind, payload: None) for _ in range(100)]
        for decoder in decoders:
            decoder.feed(HEADER.pack(32 << 20, 0, 1, 0) + b"x")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_large_frame_in_small_reads_holds_little_more_than_itself() -> None:
    payload = bytes(8 << 20)
    data = encode_frame(1, payload)
    sink = Sink(max_payload_bytes=len(payload))
    tracemalloc.start()
    try:
        sink.feed_in_pieces(data[:-1], [4_096])
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < len(payload) * 1.25
    sink.decoder.feed(data[-1:])
    assert sink.frames == [(1, payload)]


def test_the_limit_may_change_from_one_frame_to_the_next_within_a_read() -> None:
    sink = Sink(max_payload_bytes=10)

    def first(kind: int, payload: bytes) -> None:
        sink.decoder.max_payload_bytes = 1_000
        sink.decoder.on_frame = lambda kind, payload: sink.frames.append((kind, payload))

    sink.decoder.on_frame = first
    sink.decoder.feed(encode_frame(1, b"hello") + encode_frame(2, b"x" * 1_000))
    assert sink.frames == [(2, b"x" * 1_000)]
