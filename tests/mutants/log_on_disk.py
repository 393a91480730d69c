"""Bugs of the log's files: what a crash finds."""

from tests.mutants.mutant import Edit, mutant

LOG_ON_DISK = (
    mutant(
        "acknowledged-before-sync",
        "a burst counts as durable once it is written",
        "row 14, etcd#14370",
        Edit(
            "storage/burst_carrier.py",
            "        self._kernel_sync.submit(burst.segment.handle)\n        self._in_kernel = burst\n",
            "        self._loop.call_soon(self._carried, burst, None)\n",
        ),
        seed=0,
    ),
    mutant(
        "failed-sync-ignored",
        "a sync that failed counts as done",
        "row 15, cockroach#37102",
        Edit(
            "storage/burst_carrier.py",
            "                error = OSError(number, os.strerror(number))\n",
            "                error = None\n",
        ),
        seed=0,
    ),
    mutant(
        "bursts-overlap",
        "the next burst is written before the one before is durable",
        "row 16",
        Edit(
            "storage/wal.py",
            "                self._is_busy = True\n                self._started_s",
            "                self._started_s",
        ),
    ),
    mutant(
        "torn-tail-kept",
        "the bytes of a torn burst stay where the next one is written",
        "row 16",
        Edit(
            "storage/recovery.py",
            "            write_zeros(files, segment.handle, start, stop)\n",
            "            del segment, start, stop\n",
        ),
    ),
    mutant(
        "recovered-but-not-durable",
        "what a killed process had only written is acted on without a sync",
        "row 14",
        Edit(
            "storage/recovery.py",
            "        write_fully(files, handle, data, offset)\n        files.sync(handle)\n    burst",
            "        del handle, offset\n    burst",
        ),
    ),
    mutant(
        "truncation-not-written",
        "entries that take the place of others are written without a word about those",
        "Raft §5.3",
        Edit(
            "storage/log_writer.py",
            "            if (keep := entries[0].index - 1) < last_index:\n",
            "            if (keep := entries[0].index - 1) < 0:\n",
        ),
    ),
    mutant(
        "truncation-not-replayed",
        "recovery passes over a truncation",
        "Raft §5.3",
        Edit(
            "storage/log_reader.py",
            "                    index.truncate(last_index)\n",
            "                    index.truncate(max(last_index, index.last_index - 1))\n",
        ),
        Edit(
            "storage/log_reader.py",
            "                    if entry_index != index.last_index + 1:\n                        raise BadRecord",
            "                    if entry_index > index.last_index + 1:\n                        raise BadRecord",
        ),
    ),
    mutant(
        "truncation-misses-the-index",
        "the index in memory keeps what was truncated on disk",
        "Raft §5.3",
        Edit(
            "storage/log_files.py",
            "                    index.truncate(last_index)\n",
            "                    del last_index\n",
        ),
    ),
    mutant(
        "hard-state-missing-in-header",
        "a new segment begins with the hard state of the start",
        "row 4",
        Edit(
            "storage/log_writer.py",
            "            tail.hard_state = step.hard_state\n",
            "            pass\n",
        ),
    ),
    mutant(
        "hard-state-not-written-alone",
        "term and vote are written only together with entries",
        "row 4",
        Edit(
            "storage/log_writer.py",
            "        if (state := step.hard_state) is not None:\n            add(",
            "        if (state := step.hard_state) is not None and step.entries:\n            add(",
        ),
    ),
    mutant(
        "removes-a-segment-in-use",
        "one segment too many is removed behind a cut",
        "row 17",
        Edit(
            "storage/log_files.py",
            "for sequence in sorted(self._segments) if sequence < oldest]",
            "for sequence in sorted(self._segments) if sequence < oldest + may_cut]",
        ),
        Edit(
            "storage/log_files.py",
            "        dropped = [self._segments.pop(",
            "        may_cut = len(self._segments) > 2\n        dropped = [self._segments.pop(",
        ),
    ),
    mutant(
        "segments-go-before-the-base",
        "a cut takes effect on the segments before its record is durable",
        "row 17",
        Edit(
            "storage/log_files.py",
            "        self._accepted_cut = base\n        return True",
            "        self._accepted_cut = base\n"
            "        with self._lock:\n"
            "            self._index.cut(base)\n"
            "        self._supply.retire(self._drop_segments())\n"
            "        return True",
        ),
    ),
)
