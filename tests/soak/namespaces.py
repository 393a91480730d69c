"""The network between the nodes of a soak run: a network namespace for each, on one bridge. Needs root and `ip`.

Here the kernel's TCP meets the faults itself. A held road leads to a hardware address that nobody has, so packets are
lost without a word, TCP sends them again at growing intervals, and what was lost one way holds up the other, whose
acknowledgements are lost. A refused road is "unreachable" to whoever dials. Delays would need `netem`, which many
kernels lack, so there are none.

Turned down: packet filters, which need tools that may be missing; and namespaces that the whole machine sees: all this
is inside a namespace of its own (`enter`) and is gone with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.soak.roads import Condition, Place, Road

NETNS_DIRECTORY = Path("/run/netns")
OWN_NAMESPACE_FD = Path("/proc/thread-self/ns/net")
CLONE_NEWNET = 0x40000000
NOBODY = "02:00:00:00:ff:ff"


def enter(arguments: Sequence[str]) -> None:
    """Become the command `arguments` in a network of its own, which has nothing but its loopback."""
    command = ["unshare", "--net", "--mount", sys.executable, *arguments]
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


class NamespaceNetwork:
    """A `Network`. Segments that had to be sent again are counted as held; made after `enter`."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.can_delay = False
        self._numbers: dict[str, int] = {}
        self._imposed: dict[Road, Condition] = {}
        self._cut_count = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        NETNS_DIRECTORY.mkdir(exist_ok=True)
        _do("mount", "-t", "tmpfs", "none", str(NETNS_DIRECTORY))
        _do("ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", "hub", "type", "bridge")
        _do("ip", "address", "add", f"{_address(0)}/24", "dev", "hub")
        _do("ip", "link", "set", "hub", "up")

    @property
    def counts(self) -> Counter[str]:
        """Counted from the beginning, as everywhere; the kernel keeps the numbers."""
        met = {"held": ("Tcp", "RetransSegs"), "refused": ("Ip", "OutNoRoutes")}
        sums = {name: sum(self._counter(node_id, *which) for node_id in self._numbers) for name, which in met.items()}
        return Counter({**sums, "cut": self._cut_count})

    def place(self, node_id: str, http_port: int, raft_port: int) -> Place:
        number = self._numbers[node_id] = len(self._numbers) + 1
        link, address = f"link{number}", _address(number)
        _do("ip", "netns", "add", node_id)
        peer = ("peer", "name", "eth0", "address", _hardware(number), "netns", node_id)
        _do("ip", "link", "add", link, "type", "veth", *peer)
        _do("ip", "link", "set", link, "master", "hub", "up")
        _do("ip", "-n", node_id, "address", "add", f"{address}/24", "dev", "eth0")
        _do("ip", "-n", node_id, "link", "set", "eth0", "up")
        _do("ip", "-n", node_id, "link", "set", "lo", "up")
        settings: dict[str, object] = {"server_host": address, "raft_host": address}
        return Place(f"{address}:{http_port}", f"{address}:{raft_port}", settings)

    @contextlib.contextmanager
    def inside(self, node_id: str) -> Iterator[None]:
        """Only this thread goes there; a process that it starts inherits that."""
        with OWN_NAMESPACE_FD.open("rb") as own, (NETNS_DIRECTORY / node_id).open("rb") as its:
            self._go_to(its.fileno())
            try:
                yield
            finally:
                self._go_to(own.fileno())

    def impose(self, conditions: Mapping[Road, Condition]) -> None:
        before, self._imposed = self._imposed, dict(conditions)
        for road in before.keys() | conditions.keys():
            source, to = road[0], self._numbers[road[1]]
            condition = conditions.get(road, Condition())
            hardware = NOBODY if condition.is_held else _hardware(to)
            neighbour = (_address(to), "lladdr", hardware, "dev", "eth0", "nud", "permanent")
            _do("ip", "-n", source, "neighbour", "replace", *neighbour)
            was_refused = road in before and before[road].is_refused
            if condition.is_refused != was_refused:
                verb = "add" if condition.is_refused else "delete"
                _do("ip", "-n", source, "route", verb, "unreachable", f"{_address(to)}/32")

    def heal(self) -> None:
        self.impose({})

    def cut(self, roads: Iterable[Road], *, is_torn: bool) -> None:
        """Always torn, if anything was on its way: the kernel ends the connections at the dialler's side."""
        del is_torn
        for source, target in roads:
            command = ("ss", "--no-header", "-tnK", "state", "established", "dst", _address(self._numbers[target]))
            self._cut_count += len(_do("ip", "netns", "exec", source, *command).splitlines())

    def close(self) -> None:
        _do("umount", "--lazy", str(NETNS_DIRECTORY))

    def _go_to(self, descriptor: int) -> None:
        if self._libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns failed")

    def _counter(self, node_id: str, protocol: str, name: str) -> int:
        """From two lines, of names and of numbers."""
        with self.inside(node_id):
            text = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii")
        names, numbers = (line.split() for line in text.splitlines() if line.startswith(f"{protocol}:"))
        return int(numbers[names.index(name)])


def _address(number: int) -> str:
    """0 is the bridge itself, and with it the clients."""
    return f"10.99.0.{number or 254}"


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _do(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
