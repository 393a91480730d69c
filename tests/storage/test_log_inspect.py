from __future__ import annotations

from raftkv.storage.log_inspect import InspectedRecord, Verdict, inspect_log
from raftkv.storage.log_writer import WalStep
from raftkv.storage.memory_disk import MemoryDisk
from raftkv.types import EntryKind, HardState
from tests.storage.sync_log import DIRECTORY, SEGMENT_SIZE_BYTES, SyncLog, append, entry, metadata, segment_file


def stopped_disk() -> MemoryDisk:
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(
        WalStep(reset=metadata(0, 0), hard_state=HardState(3, 7), entries=[entry(1, 3, 5, EntryKind.CONFIGURATION)]),
        append(2, 4, 3),
        WalStep(cut=metadata(2, 3), entries=[entry(4, 4)]),
    )
    log.close()
    return disk


def inspected(disk: MemoryDisk) -> list[InspectedRecord]:
    before = disk.image()
    found = list(inspect_log(DIRECTORY, disk))
    assert disk.image() == before
    return found


def test_every_record_is_shown_with_its_place_and_what_it_says() -> None:
    found = inspected(stopped_disk())
    first = [each for each in found if each.path == segment_file(1)]
    assert [(each.type, each.verdict) for each in first if each.type != "BURST"] == [
        ("SEGMENT", Verdict.OK),
        ("RESET", Verdict.OK),
        ("HARD_STATE", Verdict.OK),
        *[("ENTRY", Verdict.OK)] * 4,
        ("TRUNCATE", Verdict.OK),
        ("ENTRY", Verdict.OK),
        ("BASE", Verdict.OK),
        ("", Verdict.FREE),
    ]
    details = {each.type: each.detail for each in reversed(first)}
    assert details["ENTRY"] == "index 1, term 3, configuration, 5 bytes"
    assert details["HARD_STATE"] == "term 3, voted for 7"
    assert details["TRUNCATE"] == "last index is 3"
    assert details["BASE"] == "base 2 of term 3, 2 voters"
    assert details["SEGMENT"].startswith("format 1, last index 0")


def test_the_records_cover_every_byte_without_a_gap() -> None:
    offsets = {segment_file(1): 0, segment_file(2): 0}
    for each in inspected(stopped_disk()):
        assert each.offset == offsets[each.path]
        offsets[each.path] += each.size_bytes
    assert set(offsets.values()) == {SEGMENT_SIZE_BYTES}


def test_damage_is_named_by_file_and_offset_and_told_from_a_torn_end() -> None:
    disk = stopped_disk()
    whole = inspected(disk)
    content = disk.image()[segment_file(1)]
    for wanted, verdict in (
        (next(each for each in whole if each.type == "ENTRY"), Verdict.CORRUPT),
        ([each for each in whole if each.type == "BURST"][-1], Verdict.TORN),
    ):
        damaged = bytearray(content)
        damaged[wanted.offset + 20] ^= 1
        disk.put(segment_file(1), bytes(damaged))
        found = [each for each in inspected(disk) if each.verdict not in {Verdict.OK, Verdict.FREE}]
        assert [(each.path, each.offset, each.verdict) for each in found] == [(wanted.path, wanted.offset, verdict)]


def test_foreign_files_are_shown_as_such() -> None:
    disk = stopped_disk()
    disk.put(DIRECTORY / "notes.txt", b"mine")
    assert [each.path.name for each in inspected(disk) if each.verdict is Verdict.FOREIGN] == ["notes.txt"]
