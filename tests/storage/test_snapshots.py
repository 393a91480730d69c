"""Snapshot streams: a directory arrives as it was, and nothing else ever arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.errors import DiskFull, InvariantViolation, PeerProtocolError, StorageError
from raftkv.kv import KeyValueMachine, Put
from raftkv.storage import RocksStore, SnapshotSink, SnapshotSource, free_bytes
from raftkv.storage.snapshot_chunks import (
    Begin,
    Chunk,
    Data,
    End,
    FileEnd,
    decode_chunk,
    encode_chunk,
    extend_manifest,
)
from tests.kv.model import commands_entry
from tests.storage.crashes import recorded_syncs

CHUNK_BYTES = 300
FILES = {"CURRENT": b"MANIFEST-1\n", "MANIFEST-1": bytes(100), "000001.sst": bytes(range(150)), "empty": b""}


def make_files(directory: Path, contents: dict[str, bytes]) -> Path:
    directory.mkdir()
    for name, data in contents.items():
        (directory / name).write_bytes(data)
    return directory


def read_chunks(directory: Path, chunk_bytes: int = CHUNK_BYTES) -> list[bytes]:
    source = SnapshotSource(directory, chunk_bytes)
    return list(iter(source.next_chunk, None))


def take(chunks: Iterable[bytes], sink: SnapshotSink) -> None:
    for chunk in chunks:
        sink.write(chunk)
    sink.finish()


def receive(chunks: Iterable[bytes], directory: Path) -> SnapshotSink:
    sink = SnapshotSink(directory)
    take(chunks, sink)
    return sink


def contents_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_refused(chunks: Iterable[bytes], tmp_path: Path) -> None:
    """The stream is refused, and after `discard` nothing of it is left anywhere."""
    area = tmp_path / "area"
    area.mkdir(exist_ok=True)
    sink = SnapshotSink(area / "staged")
    with pytest.raises(PeerProtocolError):
        take(chunks, sink)
    assert not (area / "staged").exists()
    sink.discard()
    assert list(area.iterdir()) == []


@pytest.fixture
def stream(tmp_path: Path) -> list[bytes]:
    return read_chunks(make_files(tmp_path / "source", FILES))


def test_a_directory_arrives_as_it_was(tmp_path: Path, stream: list[bytes]) -> None:
    assert len(stream) > 8
    assert max(map(len, stream)) <= CHUNK_BYTES
    sink = receive(stream, tmp_path / "staged")
    sink.place(tmp_path / "state")
    assert contents_of(tmp_path / "state") == FILES
    sink.discard()
    assert contents_of(tmp_path / "state") == FILES
    assert not (tmp_path / "staged").exists()


def test_an_empty_directory_arrives(tmp_path: Path) -> None:
    receive(read_chunks(make_files(tmp_path / "source", {})), tmp_path / "staged")
    assert contents_of(tmp_path / "staged") == {}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True), st.binary(max_size=3000)),
    st.integers(257, 2000),
)
def test_any_files_in_any_chunk_size(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], chunk_bytes: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    chunks = read_chunks(make_files(tmp_path / "source", contents), chunk_bytes)
    receive(chunks, tmp_path / "staged")
    assert contents_of(tmp_path / "staged") == contents


def test_a_real_state_arrives_and_opens(tmp_path: Path) -> None:
    machine = KeyValueMachine(RocksStore(tmp_path / "state"))
    for index in range(1, 50):
        machine.apply([commands_entry(index, [Put(b"%d" % number, bytes(100)) for number in range(index)])])
    machine.flush()
    machine.snapshot(tmp_path / "snapshot")
    receive(read_chunks(tmp_path / "snapshot", 4096), tmp_path / "staged").place(tmp_path / "copy")
    copy = KeyValueMachine(RocksStore(tmp_path / "copy"))
    assert (copy.last_applied, copy.state_hash()) == (machine.last_applied, machine.state_hash())
    copy.close()
    machine.close()


def test_every_lost_chunk_is_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    for place in range(len(stream)):
        assert_refused(stream[:place] + stream[place + 1 :], tmp_path)


def test_every_repeated_chunk_is_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    for place in range(len(stream)):
        assert_refused([*stream[: place + 1], *stream[place:]], tmp_path)


def test_every_exchange_of_two_chunks_is_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    for first in range(len(stream)):
        for second in range(first):
            changed = list(stream)
            changed[first], changed[second] = stream[second], stream[first]
            assert_refused(changed, tmp_path)


def test_every_changed_bit_is_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    for place, chunk in enumerate(stream):
        for offset in range(0, len(chunk), 7):
            damaged = bytearray(chunk)
            damaged[offset] ^= 1 << (offset % 8)
            assert_refused([*stream[:place], bytes(damaged), *stream[place + 1 :]], tmp_path)


def test_every_cut_chunk_is_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    for place, chunk in enumerate(stream):
        for size in (0, 3, 4, 5, len(chunk) - 1):
            assert_refused([*stream[:place], chunk[:size], *stream[place + 1 :]], tmp_path)


def test_a_stream_that_ends_early_is_noticed_wherever_it_ends(tmp_path: Path, stream: list[bytes]) -> None:
    for place in range(len(stream)):
        assert_refused(stream[:place], tmp_path)


def test_chunks_of_another_snapshot_are_noticed(tmp_path: Path, stream: list[bytes]) -> None:
    """They are whole and have the right numbers; the checksum over the whole file or snapshot is what fails."""
    changed = {**FILES, "000001.sst": bytes(reversed(range(150)))}
    other = read_chunks(make_files(tmp_path / "other", changed))
    assert len(other) == len(stream)
    for place in range(1, len(stream)):
        if other[place] != stream[place]:
            assert_refused([*stream[:place], other[place], *stream[place + 1 :]], tmp_path)
        spliced = [*stream[:place], *other[place:]]
        if spliced not in (stream, other):
            assert_refused(spliced, tmp_path)


def hostile(*chunks: Callable[[int], Chunk]) -> list[bytes]:
    return [encode_chunk(make(number)) for number, make in enumerate(chunks)]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\x00b", "a\\b", "x" * 129, "é", "a\n", "-rf"]
)
def test_only_plain_names_are_written(tmp_path: Path, name: str) -> None:
    end = FileEnd(0, name, 0, 0)
    for opening in (lambda n: Data(n, name, 0, b"x"), lambda n: FileEnd(n, name, 0, 0)):
        assert_refused(hostile(lambda n: Begin(n, 1, 1), opening, lambda n: End(n, extend_manifest(0, end))), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"area"}


def test_deep_nesting_in_a_chunk_blames_the_peer() -> None:
    """A later version's fields are skipped, which recurses."""
    payload = b"\x94\x04\x00\x01" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(PeerProtocolError):
        decode_chunk(google_crc32c.value(payload).to_bytes(4, "big") + payload)


@pytest.mark.parametrize(
    "chunks",
    [
        [lambda n: Begin(n, 2, 9), lambda n: FileEnd(n, "a", 0, 0), lambda n: FileEnd(n, "a", 0, 0)],
        [lambda n: Begin(n, 0, 0), lambda n: FileEnd(n, "a", 0, 0)],
        [lambda n: Begin(n, 1, 0), lambda n: FileEnd(n, "a", 0, 0), lambda n: FileEnd(n, "b", 0, 0)],
        [lambda n: Begin(n, 1, 3), lambda n: Data(n, "a", 0, b"four")],
        [lambda n: Begin(n, 1, 9), lambda n: Data(n, "a", 1, b"four")],
        [lambda n: Begin(n, 1, 9), lambda n: Data(n, "a", -1, b"four")],
        [lambda n: Begin(n, 2, 9), lambda n: Data(n, "a", 0, b"x"), lambda n: Data(n, "b", 0, b"x")],
        [lambda n: Begin(n, 1, 9), lambda n: Data(n, "a", 0, b"")],
        [lambda n: Begin(n, 1, 1), lambda n: Data(n, "a", 0, b"x"), lambda n: FileEnd(n, "a", 1, 7)],
        [lambda n: Begin(n, 1, 0), lambda n: FileEnd(n, "a", 1, 0)],
        [lambda n: Begin(n, 1, 1), lambda n: Data(n, "a", 0, b"x"), lambda n: End(n, 0)],
        [lambda n: Begin(n, 1, 0), lambda n: End(n, 0)],
        [lambda n: Begin(n, 0, 1), lambda n: End(n, 0)],
        [lambda n: Begin(n, 0, 0), lambda n: End(n, 0), lambda n: End(n, 0)],
        [lambda n: Begin(n, 0, 0), lambda n: Begin(n, 0, 0)],
        [lambda n: Begin(n, -1, 0)],
        [lambda n: Begin(n, 0, -1)],
        [lambda n: Begin(n, 10**9, 0)],
        [lambda n: Data(n, "a", 0, b"x")],
        [lambda n: End(n, 0)],
    ],
)
def test_well_formed_nonsense_is_refused(tmp_path: Path, chunks: list[Callable[[int], Chunk]]) -> None:
    """Each at its last chunk, so that no more of it is taken than is known to be good."""
    *before, last = hostile(*chunks)
    sink = SnapshotSink(tmp_path / "staged")
    for chunk in before:
        sink.write(chunk)
    with pytest.raises(PeerProtocolError):
        sink.write(last)
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_durable_before_the_snapshot_has_its_name(
    tmp_path: Path, stream: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = tmp_path / "staged"
    with recorded_syncs(monkeypatch) as events:
        receive(stream, staged)
    named = events.index(f"rename {staged}.new {staged}")
    paths = [f"{staged}.new", *(f"{staged}.new/{name}" for name in FILES)]
    assert {f"sync {path}" for path in paths} <= set(events[:named])
    assert events[named + 1 :] == [f"sync {tmp_path}"]


def test_a_snapshot_that_does_not_fit_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    sink = SnapshotSink(tmp_path / "staged")
    with pytest.raises(DiskFull, match="does not fit"):
        sink.write(encode_chunk(Begin(0, 1, free * 2)))
    sink.discard()
    reserving = SnapshotSink(tmp_path / "staged", reserve_bytes=free * 2)
    with pytest.raises(DiskFull, match="reserve"):
        reserving.write(encode_chunk(Begin(0, 1, 1)))
    reserving.discard()


def test_nothing_unverified_can_be_placed(tmp_path: Path, stream: list[bytes]) -> None:
    sink = SnapshotSink(tmp_path / "staged")
    for chunk in stream[:-1]:
        sink.write(chunk)
        with pytest.raises(InvariantViolation):
            sink.place(tmp_path / "state")
    sink.discard()


def test_a_transfer_given_up_anywhere_leaves_nothing(tmp_path: Path, stream: list[bytes]) -> None:
    for place in range(len(stream) + 1):
        area = tmp_path / str(place)
        area.mkdir()
        sink = SnapshotSink(area / "staged")
        for chunk in stream[:place]:
            sink.write(chunk)
        sink.discard()
        sink.discard()
        assert list(area.iterdir()) == []
        with pytest.raises(StorageError, match="given up"):
            sink.write(stream[0])
        with pytest.raises(StorageError, match="given up"):
            sink.finish()


def test_what_an_earlier_process_left_is_in_nobodys_way(tmp_path: Path, stream: list[bytes]) -> None:
    abandoned = SnapshotSink(tmp_path / "staged")
    abandoned.write(stream[0])
    abandoned.write(stream[1])
    assert (tmp_path / "staged.new").exists()
    receive(stream, tmp_path / "staged")
    assert contents_of(tmp_path / "staged") == FILES
    abandoned.discard()


def test_a_closed_source_ends_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    directory = make_files(tmp_path / "source", {"a": bytes(1000), "b": b"x"})
    source = SnapshotSource(directory, CHUNK_BYTES)
    assert source.next_chunk()
    assert source.next_chunk()
    source.close()
    source.close()
    assert source.next_chunk() is None
    changing = SnapshotSource(directory, CHUNK_BYTES)
    (directory / "a").write_bytes(bytes(10))
    with pytest.raises(StorageError, match="changed from 1000 to 10"):
        list(iter(changing.next_chunk, None))
    with pytest.raises(StorageError, match="cannot read"):
        SnapshotSource(tmp_path / "missing", CHUNK_BYTES)
