"""The commands of a client: what they send, what they print, and with which exit code they end."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.cli.processes import interrupt, raftkv_process
from tests.client.http_server import HangUp, Reply, ScriptedServer, Seen, ok, refused

POSITION = {"X-Raftkv-Revision": "7", "X-Raftkv-Leader": "node1"}


def stored(value_text: str, **headers: str) -> Reply:
    return Reply(200, b'{"data":{"key":"k","value":%s}}' % value_text.encode(), {**POSITION, **headers})


def test_put_stores_text_and_says_at_which_revision(raftkv: Command) -> None:
    with ScriptedServer(Reply(200, b"{}", POSITION)) as server:
        done = raftkv("put", "a key", "12", "--server", server.address)
        assert json.loads(server.seen[0].body) == {"key": "a key", "value": "12"}
    assert (done.exit_code, done.out, done.err) == (0, "", "stored (revision 7)\n")


def test_put_sends_json_digit_for_digit(raftkv: Command) -> None:
    with ScriptedServer(Reply(200, b"{}", POSITION)) as server:
        done = raftkv("put", "k", '{"n":12345678901234567890.10}', "--json-value", "-s", server.address, "--json")
        assert server.seen[0].body == b'{"key":"k","value":{"n":12345678901234567890.10}}'
    assert json.loads(done.out) == {"key": "k", "revision": 7}


def test_put_reads_standard_input(raftkv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("zwölf\n".encode())))
    with ScriptedServer(ok({})) as server:
        assert raftkv("put", "k", "-", "-s", server.address).exit_code == 0
        assert json.loads(server.seen[0].body)["value"] == "zwölf\n"


@pytest.mark.parametrize(
    ("stored_text", "printed"), [('"bar [b] \\u00e4"', "bar [b] ä"), ("1.10", "1.10"), ('{"a": 1}', '{"a": 1}')]
)
def test_get_prints_a_text_as_it_is_and_the_rest_as_json(raftkv: Command, stored_text: str, printed: str) -> None:
    with ScriptedServer(stored(stored_text)) as server:
        done = raftkv("get", "k", "--server", server.address)
    assert (done.exit_code, done.out, done.err) == (0, f"{printed}\n", "")


def test_get_for_programs_keeps_every_digit(raftkv: Command) -> None:
    with ScriptedServer(stored("9007199254740993.10")) as server:
        done = raftkv("get", "k", "-c", "linearizable", "--json", "-s", server.address)
        assert server.seen[0].target == "/store/k?consistency=linearizable"
    assert done.out == '{"key": "k", "revision": 7, "value": 9007199254740993.10}\n'


def test_get_warns_of_a_read_that_may_be_old(raftkv: Command) -> None:
    with ScriptedServer(stored("1", **{"X-Raftkv-Stale": "true"})) as server:
        done = raftkv("get", "k", "-s", server.address)
    assert done.out == "1\n"
    assert "may be old" in done.err


def test_delete(raftkv: Command) -> None:
    with ScriptedServer(Reply(200, b"{}", POSITION)) as server:
        assert raftkv("delete", "a/b", "-s", server.address).err == "removed (revision 7)\n"
        assert (server.seen[0].method, server.seen[0].target) == ("DELETE", "/store/a%2Fb")


@pytest.mark.parametrize(
    ("reply", "exit_code", "text"),
    [
        (refused(404, "key_not_found"), 3, "raftkv: error: key 'k' not found"),
        (refused(413, "too_large"), 2, "raftkv: error: this is too_large"),
        (refused(409, "membership_refused"), 6, "raftkv: error: this is membership_refused"),
        (refused(504, "outcome_unknown", "unknown"), 5, "raftkv: outcome unknown: this is outcome_unknown"),
        (HangUp(), 5, "raftkv: outcome unknown: "),
    ],
)
def test_exit_codes_tell_errors_apart(raftkv: Command, reply: Reply | HangUp, exit_code: int, text: str) -> None:
    with ScriptedServer(reply) as server:
        done = raftkv("put", "k", "v", "-s", server.address)
    assert (done.exit_code, done.out) == (exit_code, "")
    assert done.err.startswith(text)


def test_a_cluster_without_a_leader_is_unavailable(raftkv: Command) -> None:
    with ScriptedServer(refused(503, "no_leader")) as server:
        done = raftkv("put", "k", "v", "-s", server.address, "--timeout", "0.1")
    assert (done.exit_code, done.err) == (4, "raftkv: error: this is no_leader\n")


@pytest.mark.parametrize(
    "words", [("put", "k"), ("gett",), ("get", "k", "--consistency", "strong"), ("bench", "--mix", "x")]
)
def test_wrong_usage_exits_2(raftkv: Command, words: tuple[str, ...]) -> None:
    done = raftkv(*words)
    assert done.exit_code == 2
    assert done.out == ""
    assert done.err


def test_a_server_that_is_no_address_is_named(raftkv: Command) -> None:
    done = raftkv("get", "k", "-s", "http://db1:1/path")
    assert (done.exit_code, done.err) == (
        2,
        "raftkv: error: 'http://db1:1/path' is not a server: give host:port or http://host:port\n",
    )


CONFIGURATION = [
    {"suffrage": "Voter", "id": "node1", "address": "127.0.0.1:1111", "http_address": "127.0.0.1:2221"},
    {"suffrage": "Nonvoter", "id": "node2", "address": "127.0.0.1:1112", "http_address": "127.0.0.1:2222"},
]


def test_members_and_stats_as_tables_and_as_json(raftkv: Command) -> None:
    found = {"leader": "node1", "is_configuration_joint": False, "latest_configuration": CONFIGURATION, "peers": []}
    with ScriptedServer(ok({"state": "Leader", **found})) as server:
        table = raftkv("member", "list", "-s", server.address).out
        rows = json.loads(raftkv("member", "list", "--json", "-s", server.address).out)
        stats = raftkv("stats", "-s", server.address).out
        assert json.loads(raftkv("stats", "--json", "-s", server.address).out)["state"] == "Leader"
    assert "node2" in table
    assert rows[0] == {
        "node_id": "node1",
        "raft_address": "127.0.0.1:1111",
        "http_address": "127.0.0.1:2221",
        "suffrage": "voter",
        "is_leader": True,
    }
    assert re.search(r"Nonvoter +node2 +127\.0\.0\.1:1112", stats)
    assert re.search(r"is_configuration_joint +false", stats)


def test_join_and_remove(raftkv: Command) -> None:
    left = {"latest_configuration": [{"id": "node1"}, {"id": "node3"}]}
    with ScriptedServer(ok({}, "node node2 at db2:1111 joined successfully"), ok(left)) as server:
        assert "joined successfully" in raftkv("member", "join", "node2", "db2:1111", "-s", server.address).err
        removed = raftkv("member", "remove", "node2", "-s", server.address).err
        assert removed == "node2 is not a member (any more); members: node1, node3\n"
        assert [json.loads(seen.body) for seen in server.seen] == [
            {"node_id": "node2", "raft_address": "db2:1111"},
            {"node_id": "node2"},
        ]


@pytest.mark.parametrize(("words", "body"), [(["node2"], {"node_id": "node2"}), ([], {})])
def test_transfer(raftkv: Command, words: list[str], body: dict[str, str]) -> None:
    with ScriptedServer(ok({}, "leadership transferred to node2")) as server:
        done = raftkv("member", "transfer", *words, "-s", server.address)
        assert (server.seen[0].target, json.loads(server.seen[0].body)) == ("/raft/transfer", body)
        as_json = raftkv("member", "transfer", *words, "--json", "-s", server.address).out
    assert (done.exit_code, done.err) == (0, "leadership transferred to node2\n")
    assert json.loads(as_json) == {"message": "leadership transferred to node2"}


def test_help_of_a_flag_shows_no_value_and_paragraphs_flow(raftkv: Command) -> None:
    shown = raftkv("member", "join", "--help").out
    assert "<bool>" not in shown
    assert "raftkv member join [OPTIONS] NODE_ID HOST:RAFT_PORT" in shown
    assert "the join goes on by itself" in shown  # a line break is here in the docstring


def test_version(raftkv: Command) -> None:
    assert raftkv("--version").out.startswith("raftkv 0.")
    assert json.loads(raftkv("version", "--json").out)["raftkv"] in raftkv("version").out


@pytest.mark.parametrize("words", [("get", "k"), ("bench", "--seconds", "60", "--connections", "1")])
def test_ctrl_c_ends_a_command_that_waits(words: tuple[str, ...], tmp_path: Path) -> None:
    asked = threading.Event()

    def reply(_seen: Seen) -> Reply:
        asked.set()
        return refused(503, "no_leader")

    with ScriptedServer(reply) as server, raftkv_process(*words, "-s", server.address, cwd=tmp_path) as process:
        assert asked.wait(60)
        interrupt(process)
    assert process.returncode == 130
