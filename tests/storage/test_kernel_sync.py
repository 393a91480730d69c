"""The binding to the kernel's background sync, where this machine has it, and its clean refusal where not."""

from __future__ import annotations

import errno
import os
import platform
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv.storage import kernel_sync
from raftkv.storage.disk import OsFiles
from raftkv.storage.kernel_sync import KernelSync
from tests.storage.gates import needs_kernel


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing, not files


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def has_ended(sync: KernelSync, within_ms: int) -> bool:
    waiter = select.poll()  # unlike select(), of any number of descriptors
    waiter.register(sync, select.POLLIN)
    return bool(waiter.poll(within_ms))


def wait(sync: KernelSync) -> int:
    assert has_ended(sync, within_ms=20_000)
    return sync.finish()


@needs_kernel
def test_a_sync_ends_with_an_event_and_its_result_again_and_again(handle: int) -> None:
    sync = KernelSync.open()
    for round_number in range(50):
        os.pwrite(handle, b"x" * 4096, round_number * 4096)
        sync.submit(handle)
        assert wait(sync) == 0
        assert not has_ended(sync, within_ms=0)
    sync.close()


@needs_kernel
def test_what_cannot_be_synced_is_an_error_at_once_and_leaves_the_rest_usable(handle: int) -> None:
    sync = KernelSync.open()
    reading, writing = os.pipe()
    for descriptor, number in ((1 << 20, errno.EBADF), (writing, errno.EINVAL)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 -- the number is what is checked
            sync.submit(descriptor)
        assert caught.value.errno == number
    os.close(reading)
    os.close(writing)
    sync.submit(handle)
    assert wait(sync) == 0
    sync.close()


@needs_kernel
def test_close_waits_for_what_is_in_flight_and_lets_everything_go(handle: int) -> None:
    before = open_descriptors()
    sync = KernelSync.open()
    assert not os.get_inheritable(sync.fileno())
    os.pwrite(handle, bytes(1 << 20), 0)
    sync.submit(handle)
    sync.close()
    sync.close()
    assert open_descriptors() == before


@needs_kernel
def test_many_can_be_open_at_once(handle: int) -> None:
    syncs = [KernelSync.open() for _ in range(5)]
    for sync in syncs:
        sync.submit(handle)
    assert [wait(sync) for sync in syncs] == [0] * 5
    for sync in syncs:
        sync.close()


@needs_kernel
@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("_IOCB_CMD_FDSYNC", 99, errno.EINVAL),
        ("_CALLS", {platform.machine(): (100_000,) * 4}, errno.ENOSYS),
        ("_CALLS", {}, errno.ENOSYS),
    ],
    ids=["a kernel without the opcode", "a kernel without the calls", "an unknown processor"],
)
def test_where_the_kernel_refuses_nothing_is_left_open(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, number: int
) -> None:
    before = open_descriptors()
    monkeypatch.setattr(kernel_sync, name, value)
    with pytest.raises(OSError) as caught:  # noqa: PT011 -- as above
        KernelSync.open()
    assert caught.value.errno == number
    assert OsFiles().open_background_sync() is None
    assert open_descriptors() == before
