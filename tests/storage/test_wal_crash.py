"""A power cut at every single disk operation, with every unsynced sector kept or lost by chance.

What must hold: the recovered log is exactly the model after some number of steps, not fewer than were durable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from raftkv.storage.log_writer import WalStep
from raftkv.storage.memory_disk import MemoryDisk, PowerCut
from tests.storage.sync_log import State, SyncLog, append, metadata, vote

SCRIPT: Sequence[Sequence[WalStep]] = [
    [WalStep(reset=metadata(0, 0)), vote(1, 7)],
    [append(1, 1), append(2, 2), append(3, 3)],
    [append(4, 8, size_bytes=300)],
    [append(6, 6, term=2), vote(2)],
    [append(7, 9, term=2, size_bytes=900)],
    [append(10, 12, term=2, size_bytes=700), append(13, 13, term=2)],
    [WalStep(cut=metadata(9, 2))],
    [append(14, 14, term=2, size_bytes=9000)],
    [append(13, 15, term=3, size_bytes=10), vote(3, 8)],
    [WalStep(cut=metadata(14, 3)), append(16, 16, term=3)],
    [append(17, 20, term=3, size_bytes=600)],
    [append(21, 24, term=3, size_bytes=600)],
    [WalStep(reset=metadata(50, 4), hard_state=vote(4).hard_state, entries=append(51, 52, term=4).entries)],
    [append(53, 56, term=4, size_bytes=700)],
    [append(52, 52, term=5, size_bytes=700)],
    [WalStep(cut=metadata(52, 5))],
    [append(53, 53, term=5)],
]
STEPS = [step for steps in SCRIPT for step in steps]
MODEL = [State()]
for _step in STEPS:
    MODEL.append(MODEL[-1].after(_step))


def play(disk: MemoryDisk) -> tuple[int, int]:
    """Run the script; how many steps were written and how many of them became durable before the power went."""
    written = durable = 0
    try:
        log = SyncLog(disk)
        for steps in SCRIPT:
            for step in steps:
                written += 1
                log.write(step)
            while log.pending:
                try:
                    log.prove()
                finally:
                    durable = log.durable_step
        log.close()
    except PowerCut:
        pass
    return written, durable


def operations_of_script() -> int:
    disk = MemoryDisk()
    assert play(disk) == (len(STEPS), len(STEPS))
    return disk.operation_count


def check_recovered(disk: MemoryDisk, durable: int, written: int) -> int:
    log = SyncLog(disk)
    possible = [count for count in range(durable, written + 1) if MODEL[count] == log.state()]
    assert possible, f"{durable} steps durable, {written} written; recovered {log.state()}"
    log.files.close()
    return possible[0]


def test_the_script_itself_ends_as_the_model_says() -> None:
    disk = MemoryDisk()
    play(disk)
    assert SyncLog(disk).state() == MODEL[-1]


@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_at_any_operation_leaves_a_prefix_with_all_durable_steps(seed: int) -> None:
    for operations in range(1, operations_of_script() + 1):
        choose = random.Random(f"{seed}/{operations}")
        disk = MemoryDisk()
        disk.operations_left = operations
        written, durable = play(disk)
        disk.power_on(choose if seed else None)
        check_recovered(disk, durable, written)


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_during_recovery_lose_nothing_either(seed: int) -> None:
    for operations in range(1, operations_of_script() + 1, 3):
        choose = random.Random(f"again/{seed}/{operations}")
        disk = MemoryDisk()
        disk.operations_left = operations
        written, durable = play(disk)
        for _ in range(4):
            disk.power_on(choose)
            disk.operations_left = choose.randrange(1, 8)
            try:
                SyncLog(disk)
            except PowerCut:
                continue
        disk.power_on(choose)
        durable = check_recovered(disk, durable, written)
        check_recovered(disk, durable, durable)


def test_what_was_recovered_once_stays_and_the_log_goes_on() -> None:
    for operations in range(1, operations_of_script() + 1, 2):
        choose = random.Random(operations)
        disk = MemoryDisk()
        disk.operations_left = operations
        play(disk)
        disk.power_on(choose)
        log = SyncLog(disk)
        state = log.state()
        last_index = log.files.last_index
        more = append(last_index + 1, last_index + 2, term=9, size_bytes=1500)
        log.put(more)
        disk.power_on()
        assert SyncLog(disk).state() == state.after(more)


def test_short_writes_are_completed() -> None:
    disk = MemoryDisk()
    disk.max_write_bytes = 100
    assert play(disk) == (len(STEPS), len(STEPS))
    disk.power_on()
    assert SyncLog(disk).state() == MODEL[-1]


def test_a_large_burst_torn_between_any_two_sectors_is_cut() -> None:
    for seed in range(200):
        choose = random.Random(seed)
        disk = MemoryDisk()
        log = SyncLog(disk, 1 << 16)
        log.put(append(1, 3))
        acknowledged = log.state()
        whole = append(4, 43, size_bytes=1000)
        disk.operations_left = 2  # the write and its sync
        log.write(whole)
        with pytest.raises(PowerCut):
            log.sync()
        disk.power_on(choose)
        assert SyncLog(disk, 1 << 16).state() in (acknowledged, acknowledged.after(whole))
