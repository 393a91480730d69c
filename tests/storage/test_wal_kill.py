"""A process that is killed while it writes: everything that it was told to be durable is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raftkv.storage.log_files import WalSettings
from raftkv.storage.wal import Wal
from tests.storage.sync_log import entry

WRITER = """
import itertools, os, sys
from pathlib import Path
from raftkv.storage import Wal, WalSettings, WalStep
from tests.storage.sync_log import entry

wal = Wal.open(Path(sys.argv[1]), WalSettings(1 << 16), notify=lambda n: os.write(1, b"%d\\n" % (first + n)),
               on_failure=lambda error: os.write(1, b"failed"))
first = wal.last_index
for index in itertools.count(first + 1):
    wal.write(WalStep(entries=[entry(index, 1, 500)]))
    while wal.last_index < index - 50:
        pass
"""


def test_nothing_that_was_notified_is_lost_by_kill_9(tmp_path: Path) -> None:
    directory = tmp_path / "wal"
    notified = 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            target = notified + 300
            while notified < target:
                notified = int(writer.stdout.readline())
            writer.kill()
            # Lines that were written before the kill arrived count as well; the last one may be cut short.
            for line in writer.stdout.read().split(b"\n")[:-1]:
                notified = int(line)
        wal = Wal.open(directory, WalSettings(1 << 16), notify=lambda _: None, on_failure=lambda _: None)
        assert wal.last_index >= notified
        assert wal.entries(1, wal.last_index, 1 << 30) == [entry(at, 1, 500) for at in range(1, wal.last_index + 1)]
        wal.close()
