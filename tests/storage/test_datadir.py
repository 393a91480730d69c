"""The data directory: who may open it, and that a switch happens wholly or not at all, wherever it is cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raftkv.errors import DataDirectoryError, InvariantViolation
from raftkv.storage import DataDirectory
from raftkv.storage.identity import Identity
from tests.storage.crashes import Crash, crash_at, recorded_syncs

RUN_AND_HOLD = """
import sys, pathlib
from raftkv.storage import DataDirectory
directory = DataDirectory.open(pathlib.Path(sys.argv[1]), "node1")
print("open", flush=True)
sys.stdin.read()
"""


def open_directory(path: Path, node_id: str = "node1") -> DataDirectory:
    return DataDirectory.open(path, node_id)


def tree(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")}


def prepared(directory: DataDirectory) -> Callable[[], Identity]:
    """A new generation with a log and a state in it; calling the result switches to it."""
    generation = directory.new_generation()
    generation.wal_directory.mkdir()
    (generation.wal_directory / "log").write_text("new")
    generation.state_directory.mkdir()
    (generation.state_directory / "data").write_text("new")
    return lambda: directory.switch(generation, cluster_id=7, member_id=8)


def test_a_fresh_directory_gets_random_ids_and_keeps_them(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "a" / "b")
    identity = directory.identity
    directory.close()
    again = open_directory(tmp_path / "a" / "b")
    assert again.identity == identity
    assert (identity.node_id, identity.generation) == ("node1", 1)
    assert 0 < identity.cluster_id < 2**63
    assert 0 < identity.member_id < 2**63
    assert again.current.wal_directory.is_dir()
    assert again.current.state_directory.is_dir()
    other = open_directory(tmp_path / "other")
    assert other.identity.member_id != identity.member_id
    assert other.identity.cluster_id != identity.cluster_id
    again.close()
    other.close()


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    open_directory(tmp_path / "data").close()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_another_node_id_is_refused(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    with pytest.raises(DataDirectoryError, match=r"belongs to node 'node1', not to 'node2'"):
        open_directory(tmp_path, "node2")
    open_directory(tmp_path).close()


def test_a_directory_in_use_is_refused_with_the_pid(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN_AND_HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DataDirectoryError, match=rf"in use by the process with pid {holder.pid}\b"):
            open_directory(tmp_path)
        holder.kill()
        holder.wait()
        open_directory(tmp_path).close()


def test_the_same_process_cannot_open_it_twice(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    with pytest.raises(DataDirectoryError, match=f"pid {os.getpid()}"):
        open_directory(tmp_path)
    directory.close()
    directory.close()
    open_directory(tmp_path).close()


def test_a_refused_open_releases_the_lock(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    for _ in range(2):
        with pytest.raises(DataDirectoryError, match="belongs to"):
            open_directory(tmp_path, "node2")


def test_somebody_elses_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataDirectoryError, match=r"'thesis\.tex' but no identity\.json"):
        open_directory(tmp_path)
    assert tree(tmp_path) == {"thesis.tex"}


def test_data_without_an_identity_is_refused(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    (directory.current.wal_directory / "0.wal").write_text("votes")
    directory.close()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(DataDirectoryError, match="its identity was lost"):
        open_directory(tmp_path)


def test_an_identity_without_its_generation_is_refused(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    (tmp_path / "generation-1").rename(tmp_path / "elsewhere")
    with pytest.raises(DataDirectoryError, match="generation-1 is missing"):
        open_directory(tmp_path)


def test_a_mount_point_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_directory(tmp_path).close()


def test_a_newer_format_is_refused_before_its_checksum_is_judged(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    path = tmp_path / "identity.json"
    path.write_text(json.dumps({"format_version": 2, "anything": "else"}))
    with pytest.raises(DataDirectoryError, match=r"identity\.json has format 2, .* reads up to 1"):
        open_directory(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace("node1", "node9"),
        lambda text: text.replace('"generation": 1', '"generation": 2'),
        lambda text: text.replace('"checksum"', '"check"'),
        lambda text: text.replace('"generation"', '"generations"'),
        lambda text: "\x80" + text,
    ],
    ids=["empty", "cut", "list", "null", "name", "generation", "no checksum", "other field", "not JSON"],
)
def test_a_damaged_identity_is_refused_and_named(tmp_path: Path, damage: Callable[[str], str]) -> None:
    open_directory(tmp_path).close()
    path = tmp_path / "identity.json"
    damaged = damage(path.read_text())
    path.write_text(damaged)
    for node_id in ("node1", "node9"):
        with pytest.raises(DataDirectoryError, match=r"identity\.json is damaged"):
            open_directory(tmp_path, node_id)
    assert path.read_text() == damaged


def test_impossible_ids_are_refused_although_the_checksum_matches(tmp_path: Path) -> None:
    from raftkv.storage.identity import write_identity

    open_directory(tmp_path).close()
    for member_id in (0, -1, 2**63):
        write_identity(
            tmp_path / "identity.json",
            Identity(format_version=1, node_id="node1", cluster_id=1, member_id=member_id, generation=1),
        )
        with pytest.raises(DataDirectoryError, match="impossible values"):
            open_directory(tmp_path)


def test_what_the_system_refuses_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match=r"cannot open the data directory .*file"):
        open_directory(tmp_path / "file")
    with pytest.raises(DataDirectoryError, match="Not a directory"):
        open_directory(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_missing_permissions_are_explained(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(DataDirectoryError, match="check owner and permissions"):
        open_directory(locked)


def test_a_switch_changes_ids_log_and_state_together(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    switch = prepared(directory)
    assert directory.identity.generation == 1
    identity = switch()
    assert (identity.cluster_id, identity.member_id, identity.generation) == (7, 8, 2)
    assert (directory.current.wal_directory / "log").read_text() == "new"
    assert (tmp_path / "generation-1").is_dir(), "the old one may still be open, so it is not deleted by the switch"
    directory.remove_leftovers()
    assert not (tmp_path / "generation-1").exists()
    directory.close()
    again = open_directory(tmp_path)
    assert again.identity == identity
    again.close()


def test_a_switch_keeps_ids_that_are_not_given(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    before = directory.identity
    generation = directory.new_generation()
    generation.wal_directory.mkdir()
    generation.state_directory.mkdir()
    after = directory.switch(generation)
    assert (after.cluster_id, after.member_id) == (before.cluster_id, before.member_id)
    directory.close()


def test_a_new_generation_is_durable_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the rename must find every file of what the identity now names (ZOOKEEPER-2310)."""
    directory = open_directory(tmp_path)
    switch = prepared(directory)
    with recorded_syncs(monkeypatch) as events:
        switch()
    directory.close()
    identity = tmp_path / "identity.json"
    counts = events.index(f"rename {identity}.new {identity}")
    new = tmp_path / "generation-2"
    paths = [new, new / "wal", new / "wal" / "log", new / "state", new / "state" / "data", tmp_path, f"{identity}.new"]
    assert {f"sync {path}" for path in paths} <= set(events[:counts])
    assert f"sync {tmp_path}" in events[counts:]


def test_a_half_made_generation_cannot_be_switched_to(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    generation = directory.new_generation()
    generation.state_directory.mkdir()
    with pytest.raises(InvariantViolation, match=r"without .*wal"):
        directory.switch(generation)
    directory.close()


def test_a_generation_that_was_given_up_is_begun_afresh(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    prepared(directory)
    generation = directory.new_generation()
    assert list(generation.directory.iterdir()) == []
    directory.close()


def test_leftovers_are_removed_at_open(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    prepared(directory)
    staged = directory.staging("receiving")
    staged.mkdir()
    (staged / "data").write_text("half")
    directory.close()
    (tmp_path / "identity.json.new").write_text("half")
    again = open_directory(tmp_path)
    assert tree(tmp_path) == {"LOCK", "identity.json", "generation-1", "generation-1/wal", "generation-1/state"}
    again.close()


def test_staging_begins_empty_and_stays_inside(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    staged = directory.staging("one")
    staged.mkdir()
    assert not directory.staging("one").exists()
    for name in ("", ".", "..", "../x", "a/b", "/etc"):
        with pytest.raises(InvariantViolation):
            directory.staging(name)
    directory.close()


def test_a_first_start_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Every try crashes one file operation later; the start after it always succeeds."""
    for step in range(1, 1000):
        path = tmp_path / str(step)
        try:
            with crash_at(step, path):
                open_directory(path).close()
        except Crash:
            directory = open_directory(path)
            assert directory.current.state_directory.is_dir()
            directory.close()
        else:
            break
    assert step > 5, "the crashes reached nothing"


def test_a_switch_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Before the rename all is old, after it all is new: ids, log and state never mix (Raft §7, ZOOKEEPER-2310)."""
    seen = []
    for step in range(1, 1000):
        path = tmp_path / str(step)
        directory = open_directory(path)
        old = directory.identity
        (directory.current.state_directory / "data").write_text("old")
        (directory.current.wal_directory / "log").write_text("old")
        try:
            with crash_at(step, path):
                prepared(directory)()
                directory.remove_leftovers()
        except Crash:
            directory.close()
        else:
            directory.close()
            break
        again = open_directory(path)
        is_new = again.identity.generation == 2
        seen.append(is_new)
        expected = (7, 8) if is_new else (old.cluster_id, old.member_id)
        assert (again.identity.cluster_id, again.identity.member_id) == expected
        for file in (again.current.state_directory / "data", again.current.wal_directory / "log"):
            assert file.read_text() == ("new" if is_new else "old")
        assert len(list(path.glob("generation-*"))) == 1
        again.close()
    assert seen == sorted(seen), "once new, never old again"
    assert set(seen) == {False, True}
