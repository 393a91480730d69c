"""A disk whose power can be cut: an ext4 file system in a sparse file, behind a loop device.

`cut` stops the file system in the middle of whatever it does (EXT4_IOC_SHUTDOWN): what was not synced stays in memory,
every call from then on fails, and nothing more gets to the disk. `restore` mounts it again, which replays its
journal as the start after a power cut does. Both take a few hundredths of a second.

Mounts are made in a mount namespace of this process and its children: whatever else on the machine copies or keeps
mounts would keep a file system alive that has no power any more, and nothing is left behind however this process ends.

Turned down: **a virtual machine that is reset** and **device-mapper's flaky targets**: seconds a cut, and not to be had
in most places. What this does not see is a disk with a cache of its own that forgets what it was told to flush: what
the kernel has handed to the device counts as written.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.e2e.waiting import eventually

_IOC_SHUTDOWN = 0x8004587D
_JOURNAL_FLUSHED, _NOTHING_FLUSHED = 1, 2
"""EXT4_GOING_FLAGS_LOGFLUSH and …_NOLOGFLUSH."""
_CLONE_NEWNS = 0x00020000
_TOOLS = ("mkfs.ext4", "mount", "umount")
STRICT = "noauto_da_alloc,noinit_itable"
"""ext4 does not make up for a rename whose file was not synced, and has no thread of its own at work."""


class PowerDisk:
    """Mounted at `path` between `make` and `remove`, unless it is cut. Use it as a context: it leaves no mount."""

    def __init__(
        self, directory: Path, *, size_bytes: int = 1 << 30, options: str = STRICT, by_pages: bool = True
    ) -> None:
        """`by_pages`: single pages get to the disk, as with kernels before 6.16, not all that one write had filled."""
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self._size_bytes = size_bytes
        # A file system that might encrypt keeps no large folios; no file is encrypted, and nothing else changes.
        self._features = "encrypt" if by_pages else "^encrypt"
        self._options = f"loop,noatime,{options}"

    def __enter__(self) -> Self:
        self.make()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def make(self) -> None:
        _leave_mount_namespace()
        self.path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._size_bytes)
        lazily = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", self._features, "-E", lazily, str(self._image))
        self._mount()

    def sync(self) -> None:
        """Everything that was written is on the disk on return, whatever the writers were told."""
        _run("sync", "-f", str(self.path))

    def cut(self, *, journal_first: bool = False) -> None:
        """The power fails, now. With `journal_first` right after a commit of the journal: names and sizes of files are
        then as new as they can be, and contents as old as they can be.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            how = _JOURNAL_FLUSHED if journal_first else _NOTHING_FLUSHED
            fcntl.ioctl(descriptor, _IOC_SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """The power is back. No process may have a file of this disk open any more."""
        self._unmount()
        self._mount()

    def remove(self) -> None:
        """Unmount it, which frees the loop device as well. The image stays where it is; it is sparse."""
        if self.path.is_mount():
            self._unmount()

    def _mount(self) -> None:
        _run("mount", "-t", "ext4", "-o", self._options, str(self._image), str(self.path))

    def _unmount(self) -> None:
        def is_unmounted() -> bool:
            done = subprocess.run(["umount", str(self.path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return True

        try:
            eventually(is_unmounted, f"{self.path} is unmounted", 10)
        except AssertionError:
            _run("umount", "--lazy", str(self.path))
            raise


def what_is_missing() -> str:
    """Why the power cannot be cut here, after trying it once; empty when it can."""
    if os.geteuid() != 0:
        return "only root can mount a file system"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    with tempfile.TemporaryDirectory() as name:
        try:
            with PowerDisk(Path(name), size_bytes=16 << 20) as disk:
                disk.cut()
                disk.restore()
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", "") or error).strip()
            return f"no ext4 on a loop device, or its power cannot be cut: {said}"
    return ""


@functools.cache
def _leave_mount_namespace() -> None:
    """Threads that run already stay behind: they do not see these mounts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no mount namespace of its own: {os.strerror(number)}")
    _run("mount", "--make-rslave", "/")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
