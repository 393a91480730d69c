"""What the core and the runtime rely on, for the log on disk and its double in memory alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from raftkv.errors import InvariantViolation, StorageError
from raftkv.storage import MemoryLog, OsFiles, Wal, WalSettings, WalStep, open_log
from raftkv.types import Configuration, Entry, EntryKind, HardState, Member, SnapshotMetadata

AnyLog = Wal | MemoryLog


class LogUnderTest:
    """A log that is reopened after an orderly stop, and whose writes can be awaited: it has the loop for itself."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, open_log_under_test: Callable[[Callable[[int], None]], AnyLog]
    ) -> None:
        self._loop = loop
        self._open = open_log_under_test
        self._awaited: tuple[int, asyncio.Future[None]] | None = None
        self.notified: list[int] = []
        self.open()

    def open(self) -> None:
        async def open_in_loop() -> AnyLog:
            return self._open(self._notify)

        self.notified.clear()
        self.log = self._loop.run_until_complete(open_in_loop())

    def _notify(self, step_number: int) -> None:
        self.notified.append(step_number)
        if self._awaited is not None and step_number >= self._awaited[0]:
            self._awaited[1].set_result(None)
            self._awaited = None

    def put(self, *steps: WalStep) -> None:
        number = 0
        for step in steps:
            number = self.log.write(step)
        if not self.notified or self.notified[-1] < number:
            self._awaited = number, self._loop.create_future()
            self._loop.run_until_complete(self._awaited[1])

    def close(self) -> None:
        if isinstance(self.log, Wal):
            self._loop.run_until_complete(self.log.aclose())
        else:
            self.log.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def state(self) -> tuple[HardState, SnapshotMetadata, list[Entry]]:
        log = self.log
        return log.hard_state, log.base, log.entries(log.base.last_index + 1, log.last_index, 1 << 30)


class ThreadedFiles(OsFiles):
    """As on a system whose kernel does not sync in the background."""

    def open_background_sync(self) -> None:
        return None


@pytest.fixture(params=["disk", "disk, uvloop", "disk, thread", "memory"])
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogUnderTest]:
    memory = MemoryLog()
    files = ThreadedFiles() if request.param == "disk, thread" else OsFiles()

    def on_disk(notify: Callable[[int], None]) -> AnyLog:
        log_files = open_log(tmp_path / "wal", WalSettings(segment_size_bytes=8192), files)
        return Wal(log_files, notify=notify, on_failure=lambda error: pytest.fail(str(error)))

    def in_memory(notify: Callable[[int], None]) -> AnyLog:
        memory.reopen(notify)
        return memory

    loop = uvloop.new_event_loop() if request.param == "disk, uvloop" else asyncio.new_event_loop()
    made = LogUnderTest(loop, in_memory if request.param == "memory" else on_disk)
    yield made
    made.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def entry(index: int, term: int = 1, size_bytes: int = 10, kind: EntryKind = EntryKind.COMMANDS) -> Entry:
    return Entry(index, term, kind, f"{index}@{term}".encode().ljust(size_bytes, b"."))


def append(first: int, last: int, term: int = 1, size_bytes: int = 10) -> WalStep:
    return WalStep(entries=[entry(index, term, size_bytes) for index in range(first, last + 1)])


def metadata(last_index: int, last_term: int = 1) -> SnapshotMetadata:
    return SnapshotMetadata(last_index, last_term, Configuration((Member(5, "n"),)), 1)


def test_a_new_log_is_empty(under_test: LogUnderTest) -> None:
    assert under_test.state() == (HardState(), SnapshotMetadata(), [])
    assert (under_test.log.last_index, under_test.log.term(0), under_test.log.configurations()) == (0, 0, [])


def test_what_was_written_is_read_also_after_a_restart(under_test: LogUnderTest) -> None:
    under_test.put(WalStep(hard_state=HardState(2, 9), entries=[entry(1), entry(2, 2)]), append(3, 30, 2, 900))
    expected = (HardState(2, 9), SnapshotMetadata(), [entry(1), entry(2, 2), *append(3, 30, 2, 900).entries])
    for _ in range(2):
        assert under_test.state() == expected
        assert [under_test.log.term(index) for index in (0, 1, 2, 30)] == [0, 1, 2, 2]
        under_test.reopen()


def test_step_numbers_ascend_and_the_last_one_is_notified(under_test: LogUnderTest) -> None:
    numbers = [under_test.log.write(append(index, index)) for index in range(1, 6)]
    under_test.put(WalStep(hard_state=HardState(1)))
    assert numbers == sorted(set(numbers))
    assert under_test.notified == sorted(set(under_test.notified))
    assert under_test.notified[-1] > numbers[-1]


def test_an_entry_that_is_not_behind_the_last_one_truncates_the_suffix_first(under_test: LogUnderTest) -> None:
    under_test.put(append(1, 9), append(4, 5, 2))
    for _ in range(2):
        assert under_test.state()[2] == [*append(1, 3).entries, *append(4, 5, 2).entries]
        under_test.reopen()


def test_entries_are_limited_by_their_data_but_one_is_always_given(under_test: LogUnderTest) -> None:
    under_test.put(append(1, 20, size_bytes=100))
    log = under_test.log
    for limit, count in ((0, 1), (99, 1), (199, 1), (200, 2), (1000, 10), (10_000, 18)):
        assert [each.index for each in log.entries(3, 20, limit)] == list(range(3, 3 + count)), limit
    assert log.entries(7, 6, 1000) == []


@pytest.mark.parametrize(("first", "last"), [(0, 3), (3, 5), (5, 5)])
def test_entries_that_the_log_does_not_hold_are_our_bug(under_test: LogUnderTest, first: int, last: int) -> None:
    under_test.put(append(1, 4))
    with pytest.raises(InvariantViolation):
        under_test.log.entries(first, last, 100)


def test_terms_are_known_from_the_base_to_the_last_entry_only(under_test: LogUnderTest) -> None:
    under_test.put(WalStep(reset=metadata(10, 3)), append(11, 12, 4))
    assert [under_test.log.term(index) for index in (10, 11, 12)] == [3, 4, 4]
    for index in (9, 13):
        with pytest.raises(InvariantViolation):
            under_test.log.term(index)


def test_configurations_follow_truncation_compaction_and_reset(under_test: LogUnderTest) -> None:
    marks = [entry(index, kind=EntryKind.CONFIGURATION) for index in (2, 4, 6)]
    under_test.put(
        WalStep(entries=[entry(1), marks[0], entry(3), marks[1], entry(5), marks[2]]),
    )
    assert under_test.log.configurations() == marks
    under_test.put(append(6, 7, 2))
    assert under_test.log.configurations() == marks[:2]
    under_test.log.compact(metadata(2))
    for _ in range(2):
        assert under_test.log.configurations() == marks[1:2]
        under_test.reopen()
    under_test.put(WalStep(reset=metadata(50)))
    assert under_test.log.configurations() == []


def test_compaction_moves_the_base_for_good_and_never_back(under_test: LogUnderTest) -> None:
    under_test.put(append(1, 40, size_bytes=900))
    under_test.log.compact(metadata(25))
    under_test.log.compact(metadata(7))
    assert under_test.log.term(25) == 1
    for _ in range(2):
        assert under_test.log.base == metadata(25)
        assert under_test.state()[2] == list(append(26, 40, size_bytes=900).entries)
        under_test.reopen()
    with pytest.raises(InvariantViolation):
        under_test.log.compact(metadata(41))
    under_test.log.compact(metadata(40))
    under_test.reopen()
    assert under_test.state()[1:] == (metadata(40), [])
    under_test.put(append(41, 41, 2))
    assert under_test.log.last_index == 41


def test_a_reset_empties_the_log_and_keeps_the_rest_of_its_step(under_test: LogUnderTest) -> None:
    under_test.put(append(1, 5), WalStep(reset=metadata(100, 7), hard_state=HardState(8), entries=[entry(101, 8)]))
    for _ in range(2):
        assert under_test.state() == (HardState(8), metadata(100, 7), [entry(101, 8)])
        under_test.reopen()


def test_a_reset_at_zero_gives_a_new_log_its_configuration(under_test: LogUnderTest) -> None:
    base = SnapshotMetadata(configuration=Configuration((Member(1, "node1"),)))
    under_test.put(WalStep(reset=base))
    under_test.reopen()
    assert under_test.state() == (HardState(), base, [])


def test_a_gap_is_refused_and_the_log_goes_on(under_test: LogUnderTest) -> None:
    under_test.put(append(1, 3))
    for step in (append(5, 5), WalStep(entries=[entry(4), entry(6)]), WalStep(reset=metadata(9), entries=[entry(9)])):
        with pytest.raises(InvariantViolation):
            under_test.log.write(step)
    under_test.put(append(4, 4))
    assert under_test.log.last_index == 4


def test_nothing_can_be_written_after_close(under_test: LogUnderTest) -> None:
    under_test.close()
    with pytest.raises(StorageError):
        under_test.log.write(append(1, 1))


def test_index_retaining_tells_where_the_newest_bytes_begin(under_test: LogUnderTest) -> None:
    assert under_test.log.index_retaining(1000) == 1
    under_test.put(append(1, 100, size_bytes=500))
    log = under_test.log
    found = [log.index_retaining(size) for size in (0, 2000, 20_000, 1 << 30)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (101, 1)
    assert 96 <= found[1] <= 101
    assert 60 <= found[2] <= 90
    log.compact(metadata(70))
    assert log.index_retaining(1 << 30) == 71


@pytest.mark.parametrize("seed", range(10))
def test_any_history_reads_as_a_list_would(under_test: LogUnderTest, seed: int) -> None:
    choose = random.Random(seed)
    base, entries, term = 0, list[Entry](), 1
    for _ in range(40):
        match choose.choice(["append", "append", "truncate", "compact", "reset", "reopen"]):
            case "append" | "truncate" as what:
                if what == "truncate" and entries:
                    del entries[choose.randrange(len(entries)) :]
                    term += 1
                step = append(
                    base + len(entries) + 1, base + len(entries) + choose.randint(1, 5), term, choose.randint(1, 3000)
                )
                entries += step.entries
                under_test.put(step)
            case "compact" if entries:
                count = choose.randint(1, len(entries))
                under_test.log.compact(metadata(entries[count - 1].index, entries[count - 1].term))
                base = entries[count - 1].index
                del entries[:count]
            case "reset" if choose.random() < 0.3:
                base += len(entries) + choose.randint(1, 10)
                entries.clear()
                under_test.put(WalStep(reset=metadata(base, term)))
            case "reopen":
                under_test.reopen()
        assert (under_test.log.base.last_index, under_test.state()[2]) == (base, entries)
