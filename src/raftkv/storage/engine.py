"""The state's store: RocksDB behind `OrderedStore`.

RocksDB's own log is off. Raft's log already holds every change, so a second one would only double the bytes to
sync; what is lost in a crash is applied again from there. With one column family and one memtable order,
what survives is always a prefix of the writes, cut between batches.

Memory is bounded here and nowhere else: block cache (index and filter blocks included), write buffers, open files.

Turned down: LMDB (faster reads, but a put costs twice as much and every commit writes whole pages, with a
sync to be safe) and SQLite (ten times the cost a put). More than one column family: their memtables are flushed
separately, and the prefix would hold for each alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteOptions,
)
from rocksdict import WriteBatch as RocksBatch

from raftkv.errors import StorageError, require
from raftkv.statemachine import WriteBatch

_MIB = 1 << 20
_TYPICAL_BLOCK_BYTES = 4300
"""A data block of 4 KiB with what the cache adds; the cache sizes its table by it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RocksSettings:
    """Sizes in bytes. At most `write_buffer_count` buffers and one block cache are in memory at once."""

    write_buffer_bytes: int = 32 * _MIB
    write_buffer_count: int = 3
    block_cache_bytes: int = 32 * _MIB
    open_files_max_count: int = 256


class RocksStore:
    """An open store; obeys `OrderedStore`. Any method may be called from any thread."""

    def __init__(self, directory: Path, settings: RocksSettings | None = None, *, is_read_only: bool = False) -> None:
        """Opens the store in `directory`, making an empty one where there is none. Raises StorageError.

        Opened `is_read_only` nothing is made or changed, and writing fails.
        """
        self._directory = directory
        self._write_options = _write_options()
        try:
            access = AccessType.read_only(error_if_log_file_exist=False) if is_read_only else AccessType.read_write()
            options = _options(settings or RocksSettings())
            # Named, or a store that exists is opened with its options of last time, which know no cache and no filter.
            families = {"default": options}
            self._db = Rdict(str(directory), options, column_families=families, access_type=access)
        except Exception as error:  # rocksdict raises plain Exception
            raise self._failure("open", error) from error

    def get(self, key: bytes, /) -> bytes | None:
        try:
            return cast("bytes | None", self._db.get(key))
        except Exception as error:
            raise self._failure("read", error) from error

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        try:
            return cast("list[bytes | None]", self._db.get(list(keys)))
        except Exception as error:
            raise self._failure("read", error) from error

    def new_batch(self) -> WriteBatch:
        return RocksBatch(raw_mode=True)

    def write(self, batch: WriteBatch, /) -> None:
        try:
            self._db.write(cast("RocksBatch", batch), self._write_options)
        except Exception as error:
            raise self._failure("write", error) from error

    def settle(self) -> None:
        """RocksDB does such things in threads of its own."""

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        if stop <= start:
            return iter(())
        options = ReadOptions()
        if not reverse:  # going down, `_read` stops: rocksdict 0.3.29 takes a lower bound for an upper one
            options.set_iterate_upper_bound(stop)
        try:
            place = self._db.iter(options)
            place.seek_for_prev(stop) if reverse else place.seek(start)
        except Exception as error:
            raise self._failure("read", error) from error
        return self._read(place, place.prev if reverse else place.next, start, stop)

    def _read(
        self, place: RdictIter, advance: Callable[[], None], start: bytes, stop: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """rocksdict's own `items()` would be shorter, but it takes a damaged block for the end of the data."""
        try:
            while place.valid():
                key = place.key()
                if key < start:
                    return
                if key != stop:  # going down begins at `stop` itself
                    yield key, place.value()
                advance()
            place.status()
        except Exception as error:
            raise self._failure("read", error) from error

    def flush(self) -> None:
        """RocksDB syncs the files that it writes; other threads run meanwhile."""
        try:
            self._db.flush()
        except Exception as error:
            raise self._failure("flush", error) from error

    def checkpoint(self, directory: Path) -> None:
        """Hard links; what is not flushed yet is flushed first.

        rocksdict keeps the interpreter to itself meanwhile, so every thread waits: 2 to 5 ms right after a `flush`, and
        as long as a flush takes otherwise.
        """
        try:
            Checkpoint(self._db).create_checkpoint(str(directory))
        except Exception as error:
            raise self._failure("copy", error) from error

    def close(self) -> None:
        """Flushes what is not flushed yet: a start after a clean stop then has nothing to apply again."""
        try:
            self._db.close()
        except DbClosedError:
            return
        except Exception as error:
            raise self._failure("close", error) from error

    def property(self, name: str) -> int:
        """A RocksDB integer property such as `rocksdb.estimate-num-keys`; 0 when it has none of that name."""
        try:
            return self._db.property_int_value(name) or 0
        except Exception as error:
            raise self._failure("read", error) from error

    def _failure(self, action: str, error: Exception) -> StorageError:
        return StorageError(f"cannot {action} the state in {self._directory}: {error}")


def _write_options() -> WriteOptions:
    options: Any = WriteOptions()
    options.disable_wal = True  # a property, whatever the type stub says
    require(options.disable_wal is True, "RocksDB's own log could not be switched off")
    return cast("WriteOptions", options)


def _options(settings: RocksSettings) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(settings.write_buffer_bytes)
    options.set_max_write_buffer_number(settings.write_buffer_count)
    options.set_allow_concurrent_memtable_write(False)  # one thread writes; plain stores are cheaper than atomic ones
    # Most puts are of new keys, and a miss in the memtable otherwise costs a search in its skip list.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.01)
    options.set_max_open_files(settings.open_files_max_count)
    # Values are small and many: unpacking a block for every get of a key, and packing what is rewritten, cost more than
    # the space is worth (docs/design/performance.md, with the two lines below).
    options.set_compression_type(DBCompressionType.none())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_level_zero_file_num_compaction_trigger(8)
    options.set_max_bytes_for_level_base(8 * settings.write_buffer_bytes)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(_MIB)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    table = BlockBasedOptions()
    # The ordinary LRU cache is cut into shards of 512 KiB, and an index that does not fit into its shard is read from
    # disk for every get (measured: 60 us instead of 6). This cache is one piece. Index and filter of a file are whole
    # blocks: in pieces they cost two thirds more a get. They take 1.5 % of the data, see `block_cache_bytes`.
    table.set_block_cache(Cache.new_hyper_clock_cache(settings.block_cache_bytes, _TYPICAL_BLOCK_BYTES))
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options.set_block_based_table_factory(table)
    return options
