"""A process that is killed while it writes: everything that it was told to be durable is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raftkv.storage.log_files import WalSettings
from raftkv.storage.log_opening import open_log
from tests.storage.sync_log import entry

WRITER = """
import asyncio, os, sys
from pathlib import Path
from raftkv.storage import Wal, WalSettings, WalStep, open_log
from tests.storage.sync_log import entry

async def main():
    def notify(step_number):
        os.write(1, b"%d\\n" % (first + step_number))
    wal = Wal(open_log(Path(sys.argv[1]), WalSettings(1 << 16)), notify=notify,
              on_failure=lambda error: os.write(1, b"failed"))
    first = index = wal.last_index
    while True:
        index += 1
        wal.write(WalStep(entries=[entry(index, 1, 500)]))
        while wal.last_index < index - 50:
            await asyncio.sleep(0)

asyncio.run(main())
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
        log = open_log(directory, WalSettings(1 << 16))
        assert log.last_index >= notified
        assert log.entries(1, log.last_index, 1 << 30) == [entry(at, 1, 500) for at in range(1, log.last_index + 1)]
        log.close()
