"""fdatasync without a thread: the kernel's own workers do it, and an eventfd in the event loop tells its end.

Linux AIO has had `IOCB_CMD_FDSYNC` since 4.18; the binding is four system calls through ctypes. What it saves is not
the sync but the company: a Python thread that syncs takes the GIL from the loop and gives it back for every burst,
about eleven futex calls each (measured; see docs/design/log-driving.md).

Where it is refused (another system, an unknown processor, a seccomp filter, an old kernel, all of the system's AIO
contexts in use) `open` raises `OSError` and leaves nothing behind. Old kernels know the calls but not the opcode, so
`open` tries one real sync.

Turned down: **io_uring**: container runtimes refuse it by default (seccomp), and its rings would be a binding of
several hundred lines with memory barriers that Python cannot express. **libaio**: a package to install for four calls
that libc's `syscall` already makes. **AIO for the write too**: buffered AIO writes are done inside `io_submit`, so
nothing is won over `pwrite`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import sys
from typing import Self

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit by `platform.machine()`; 64-bit, little-endian."""
_IOCB_CMD_FDSYNC = 3
_IOCB_FLAG_RESFD = 1
_PROBE_TIMEOUT_MS = 1000


class _Iocb(ctypes.Structure):
    """`struct iocb` of linux/aio_abi.h, as it is on little-endian machines."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size_bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_descriptor", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """`struct io_event`; `result` is 0 or a negative errno."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("iocb", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class _Timeout(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class KernelSync:
    """One sync at a time: `submit`, wait until `fileno()` is readable, `finish`. Not across a fork."""

    def __init__(self) -> None:
        """Use `open`."""
        self._setup_call, self._destroy_call, self._getevents_call, self._submit_call = _call_numbers()
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # All that a call needs is made once; the kernel has copied the iocb when io_submit returns.
        self._iocb = _Iocb(opcode=_IOCB_CMD_FDSYNC, flags=_IOCB_FLAG_RESFD, event_descriptor=self._eventfd)
        self._iocbs = (ctypes.c_void_p * 1)(ctypes.addressof(self._iocb))
        self._event = _Event()
        self._event_reference = ctypes.byref(self._event)
        self._at_once = _Timeout()
        self._at_once_reference = ctypes.byref(self._at_once)
        self._one = ctypes.c_long(1)
        try:
            self._call(self._setup_call, self._one, ctypes.byref(self._context))
        except BaseException:
            os.close(self._eventfd)
            raise

    @classmethod
    def open(cls) -> Self:
        """Raises `OSError` where it cannot be had. Takes about 0.1 ms, of a sync of nothing."""
        sync = cls()
        try:
            sync._probe()
        except BaseException:
            sync.close()
            raise
        return sync

    def fileno(self) -> int:
        """Readable once the sync that was submitted has ended."""
        return self._eventfd

    def submit(self, handle: int) -> None:
        """Begin to sync; nothing may be in flight. Raises `OSError` when the kernel does not even begin."""
        self._iocb.descriptor = handle
        self._call(self._submit_call, self._context, self._one, self._iocbs)

    def finish(self) -> int:
        """Take the result of the sync that has ended: 0 when all is durable, else an errno. Never blocks."""
        os.read(self._eventfd, 8)
        taken = self._call(
            self._getevents_call, self._context, self._one, self._one, self._event_reference, self._at_once_reference
        )
        if taken != 1:
            raise OSError(errno.EIO, "the kernel told the end of a sync, but not its result")
        result: int = self._event.result
        return -result

    def close(self) -> None:
        """Let everything go; blocks until a sync in flight has ended. Take `fileno()` out of the loop before."""
        if self._eventfd >= 0:
            self._syscall(self._destroy_call, self._context)
            os.close(self._eventfd)
            self._eventfd = -1

    def _probe(self) -> None:
        handle = os.memfd_create("raftkv-probe", os.MFD_CLOEXEC)
        try:
            self.submit(handle)
            poll = select.poll()
            poll.register(self._eventfd, select.POLLIN)
            if not poll.poll(_PROBE_TIMEOUT_MS):
                raise TimeoutError(errno.ETIMEDOUT, "a sync of nothing does not end")
            if number := self.finish():
                raise OSError(number, os.strerror(number))
        finally:
            os.close(handle)

    def _call(self, number: ctypes.c_long, *arguments: object) -> int:
        """The system call's result; raises `OSError`, but starts again when a signal came in between."""
        while True:
            result: int = self._syscall(number, *arguments)
            if result >= 0:
                return result
            if (code := ctypes.get_errno()) != errno.EINTR:
                raise OSError(code, os.strerror(code))


def _call_numbers() -> tuple[ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long]:
    machine = platform.machine()
    # A 32-bit program on a 64-bit kernel has other numbers.
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or machine not in _CALLS:
        raise OSError(errno.ENOSYS, f"no binding to the kernel's AIO on {sys.platform} {machine}")
    setup, destroy, getevents, submit = (ctypes.c_long(number) for number in _CALLS[machine])
    return setup, destroy, getevents, submit
