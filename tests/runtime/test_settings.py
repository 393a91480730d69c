"""Settings: four sources in one order, and everything wrong is refused by the name that its source uses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from raftkv.errors import SettingsError
from raftkv.runtime.addresses import is_loopback, is_wildcard, join_address, split_address
from raftkv.runtime.settings import SETTINGS, Settings
from raftkv.runtime.settings.loading import load_settings
from raftkv.runtime.settings.schema import InitialMember, Unit
from raftkv.types import WriteMode

REQUIRED = {"RAFT_NODE_ID": "node1", "RAFT_VOL_DIR": "node_1_data"}


def write_toml(directory: Path, text: str) -> Path:
    path = directory / "raftkv.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_reference_environment_is_enough() -> None:
    environ = {"SERVER_PORT": "2222", "RAFT_NODE_ID": "node2", "RAFT_PORT": "1112", "RAFT_VOL_DIR": "node_2_data"}
    settings = load_settings({}, environ)
    assert (settings.node_id, settings.server_port, settings.raft_port) == ("node2", 2222, 1112)
    assert settings.data_dir == Path("node_2_data")
    assert settings.server_address == "127.0.0.1:2222"
    assert settings.raft_address == "127.0.0.1:1112"


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write_toml(tmp_path, 'server_port = 3\nraft_port = 3\nwrite_mode = "reject"\n')
    environ = {**REQUIRED, "SERVER_PORT": "2", "RAFT_PORT": "2", "RAFTKV_CONFIG": str(path)}
    settings = load_settings({"server_port": "1", "raft_port": None}, environ)
    assert (settings.server_port, settings.raft_port) == (1, 2)
    assert settings.write_mode is WriteMode.REJECT
    assert settings.election_timeout_ms == SETTINGS["election_timeout_ms"].default


def test_config_flag_wins_over_its_environment_name(tmp_path: Path) -> None:
    path = write_toml(tmp_path, "max_connections = 7")
    environ = {**REQUIRED, "RAFTKV_CONFIG": "/nowhere/at/all.toml"}
    assert load_settings({}, environ, path).max_connections == 7


def test_every_setting_can_be_given_by_every_source(tmp_path: Path) -> None:
    texts = {
        Unit.TEXT: "127.0.0.3",
        Unit.PATH: "some/file",
        Unit.ADDRESS: "db1:2221",
        Unit.PORT: "4242",
        Unit.FLAG: "true",
    }
    numbers = {"heartbeat_interval_ms": "80", "election_timeout_ms": "500", "max_header_bytes": "20KiB"}
    numbers |= {"max_key_bytes": "2KiB", "tick_interval_ms": "20", "disk_reserve_bytes": "512 MiB"}
    for spec in SETTINGS.values():
        if spec.unit in {Unit.MEMBERS, Unit.ADDRESSES} or spec.name.startswith("raft_tls"):
            continue  # these depend on each other and have tests of their own
        text = numbers.get(spec.name, texts.get(spec.unit, ""))
        if spec.choices is not None:
            text = list(spec.choices)[-1].value
            text = "linearizable" if spec.name == "read_consistency" else text
        if not text:
            text = str(spec.default + 1)
        path = write_toml(
            tmp_path, f'{spec.name} = "{text}"' if spec.unit is not Unit.PORT else f"{spec.name} = {text}"
        )
        environ = {key: value for key, value in REQUIRED.items() if key != spec.environment}
        required = {"node_id": "node1", "data_dir": "d"} if spec.is_required else {}
        others = {name: value for name, value in required.items() if name != spec.name}
        if spec.unit in {Unit.MILLISECONDS, Unit.COUNT}:
            path = write_toml(tmp_path, f"{spec.name} = {text}")
        by_flag = getattr(load_settings({**others, spec.name: text}, environ), spec.name)
        by_environment = getattr(load_settings(others, {**environ, spec.environment: text}), spec.name)
        by_file = getattr(load_settings(others, environ, path), spec.name)
        assert by_flag == by_environment == by_file != spec.default, spec.name


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ({}, {"SERVER_PORT": "http"}, "", "SERVER_PORT (environment): 'http' is not a whole number"),
        ({}, {"SERVER_PORT": "70000"}, "", "SERVER_PORT (environment): 70000 is not between 0 and 65535 (port)"),
        ({"raft_port": "-1"}, {}, "", "--raft-port: -1 is not between 0 and 65535 (port)"),
        ({}, {}, 'server_port = "a"', "server_port (FILE): 'a' is not a whole number"),
        ({}, {}, "max_key_bytes = true", "max_key_bytes (FILE): True is not a whole number"),
        ({}, {}, "lease_reads = 3", "lease_reads (FILE): 3 is neither true nor false"),
        ({}, {}, "sever_port = 1", "sever_port (FILE): is not a setting; did you mean server_port?"),
        ({}, {}, "[server]\nport = 1", "server (FILE): is not a setting"),
        ({}, {}, "server_port =", "--config FILE: is not valid TOML"),
        ({}, {"RAFTKV_JION": "x"}, "", "RAFTKV_JION (environment): is not a setting; did you mean RAFTKV_JOIN?"),
        ({"write_mode": "ask"}, {}, "", "--write-mode: 'ask' is none of forward, redirect, reject"),
        ({"max_value_bytes": "1MB"}, {}, "", "--max-value-bytes: '1MB' is not a size"),
        ({"node_id": "no spaces"}, {}, "", "--node-id: 'no spaces' is not a name"),
        ({"node_id": "n" * 65}, {}, "", "--node-id: "),
        ({"data_dir": ""}, {}, "", "--data-dir: is empty"),
        ({"advertise_raft_address": "db1"}, {}, "", "--advertise-raft-address: 'db1' is not host:port"),
        ({"advertise_raft_address": "0.0.0.0:1"}, {}, "", "--advertise-raft-address: '0.0.0.0:1' cannot be connected"),
        ({"join": "db1:1,db2"}, {}, "", "--join: 'db2' is not host:port"),
        ({"initial_cluster": "db1:1"}, {}, "", "--initial-cluster: 'db1:1' is not name=host:port"),
        ({"initial_cluster": "node2=db2:1"}, {}, "", "--initial-cluster: does not list this node, node1"),
        ({"initial_cluster": "node1=a:1,node1=b:1"}, {}, "", "--initial-cluster: names a node twice"),
        ({"initial_cluster": "node1=a:1,node2=a:1"}, {}, "", "--initial-cluster: lists an address twice"),
        ({"initial_cluster": "node1=a:1", "join": "b:2"}, {}, "", "--join: cannot be used together with"),
        ({"initial_cluster": "node1=a:1", "advertise_raft_address": "b:1"}, {}, "", "--advertise-raft-address: is b:1"),
        ({"heartbeat_interval_ms": "300"}, {}, "", "election_timeout_ms (default): 400 is below twice"),
        ({"election_timeout_ms": "100"}, {}, "", "--election-timeout-ms: 100 is below twice"),
        (
            {"tick_interval_ms": "101", "heartbeat_interval_ms": "101"}, {}, "",
            "election_timeout_ms (default): 400 is below four times",
        ),
        ({"tick_interval_ms": "100"}, {}, "", "heartbeat_interval_ms (default): 75 is below tick_interval_ms (100)"),
        ({"max_key_bytes": "64KiB"}, {}, "", "max_header_bytes (default): 16384 is below"),
        ({"max_value_bytes": "16MiB", "max_pending_bytes": "16MiB"}, {}, "", "--max-pending-bytes: "),
        ({"disk_reserve_bytes": "1"}, {}, "", "--disk-reserve-bytes: 1 is below segment_size_bytes"),
        (
            {"disk_reserve_bytes": "127MiB"}, {}, "",
            "--disk-reserve-bytes: 133169152 is below segment_size_bytes + 2 * write_buffer_bytes (134217728)",
        ),
        ({"write_buffer_bytes": "128MiB"}, {}, "", "disk_reserve_bytes (default): 268435456 is below"),
        ({"server_host": "0.0.0.0"}, {}, "", "advertise_server_address (default): must be given"),
        ({"raft_host": "::"}, {}, "", "advertise_raft_address (default): must be given because raft_host is ::"),
        ({"read_consistency": "lease"}, {}, "", "--read-consistency: lease needs lease_reads"),
        ({"raft_tls_cert_file": "c.pem"}, {}, "", "raft_tls_key_file (default): must be given too"),
        ({"raft_port": "2221"}, {}, "", "--raft-port: 2221 is the server_port too"),
        ({"raft_port": "0"}, {}, "", "--raft-port: 0 needs advertise_raft_address"),
        ({"server_port": "0"}, {}, "", "--server-port: 0 needs advertise_server_address"),
        ({"data_dir": "~nobody-of-this-name/x"}, {}, "", "--data-dir: "),
        ({}, {}, 'raft_tls_key_file = "a\\u0000b"', "raft_tls_key_file (FILE): holds a zero byte"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_the_name_of_its_source(
    tmp_path: Path, flags: dict[str, str], environ: dict[str, str], toml: str, expected: str
) -> None:
    path = write_toml(tmp_path, toml)
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, {**REQUIRED, **environ}, path)
    assert str(caught.value).startswith(expected.replace("FILE", str(path)))


def test_a_required_setting_that_is_missing_is_named_with_its_sources() -> None:
    with pytest.raises(SettingsError, match=r"node_id: required; give it as --node-id or RAFT_NODE_ID \(environment\)"):
        load_settings({"data_dir": "d"}, {})


def test_a_missing_config_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings({}, REQUIRED, tmp_path / "missing.toml")


def test_an_empty_environment_variable_counts_as_not_given() -> None:
    assert load_settings({}, {**REQUIRED, "SERVER_PORT": ""}).server_port == 2221


def test_constructing_settings_checks_them_too() -> None:
    with pytest.raises(SettingsError, match="server_port: 65536 is not between"):
        Settings(node_id="node1", data_dir=Path("d"), server_port=65536)
    valid = Settings(node_id="node1", data_dir=Path("d"))
    with pytest.raises(SettingsError, match="election_timeout_ms"):
        dataclasses.replace(valid, election_timeout_ms=149)


def test_lists_of_members_and_addresses(tmp_path: Path) -> None:
    settings = load_settings({"initial_cluster": "node1=db1:1111, node2=[::1]:1112"}, {**REQUIRED})
    assert settings.initial_cluster == (InitialMember("node1", "db1:1111"), InitialMember("node2", "[::1]:1112"))
    assert settings.raft_address == "db1:1111"
    path = write_toml(tmp_path, 'join = ["db1:2221", "db2:2221"]')
    assert load_settings({}, REQUIRED, path).join == ("db1:2221", "db2:2221")


def test_any_free_port_needs_an_address_to_advertise() -> None:
    flags = {"server_port": "0", "advertise_server_address": "db1:80", "raft_port": "0"}
    listed = load_settings({**flags, "initial_cluster": "node1=db1:1111"}, REQUIRED)
    given = load_settings({**flags, "advertise_raft_address": "db1:1111"}, REQUIRED)
    for settings in (listed, given):
        assert (settings.server_address, settings.raft_address) == ("db1:80", "db1:1111")


def test_listening_everywhere_needs_only_an_address_to_advertise() -> None:
    flags = {"server_host": "0.0.0.0", "advertise_server_address": "db1:2221"}
    flags |= {"raft_host": "0.0.0.0", "initial_cluster": "node1=db1:1111"}
    settings = load_settings(flags, REQUIRED)
    assert (settings.server_address, settings.raft_address) == ("db1:2221", "db1:1111")


@pytest.mark.parametrize(
    ("profiling", "host", "expected"),
    [("auto", "127.0.0.1", True), ("auto", "192.0.2.1", False), ("on", "192.0.2.1", True), ("off", "127.0.0.1", False)],
)
def test_profiling_is_automatic_only_on_loopback(profiling: str, host: str, expected: bool) -> None:
    assert load_settings({"profiling": profiling, "server_host": host}, REQUIRED).is_profiling is expected


@pytest.mark.parametrize(
    "address", ["", "db1", ":1", "db1:", "db1:x", "db1:70000", "::1:1", "a b:1", "[db1]:1", "a=b:1"]
)
def test_what_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        split_address(address)


@pytest.mark.parametrize(("host", "port"), [("db1", 1), ("127.0.0.1", 65535), ("::1", 2221)])
def test_addresses_survive_being_joined_and_split(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


def test_wildcard_and_loopback_hosts() -> None:
    assert all(map(is_wildcard, ["0.0.0.0", "::", "*", ""]))
    assert not any(map(is_wildcard, ["127.0.0.1", "db1"]))
    assert all(map(is_loopback, ["127.0.0.1", "127.0.0.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "192.0.2.1", "db1"]))


def test_every_row_of_the_table_is_complete() -> None:
    environments = [spec.environment for spec in SETTINGS.values()]
    assert len(set(environments)) == len(environments)
    for spec in SETTINGS.values():
        assert spec.help.endswith("."), spec.name
        assert spec.group, spec.name
        if spec.unit in {Unit.MILLISECONDS, Unit.BYTES, Unit.COUNT, Unit.PORT}:
            assert spec.first < spec.last, spec.name
        assert (spec.unit is Unit.CHOICE) == (spec.choices is not None), spec.name
        for suffix, unit in (("_ms", Unit.MILLISECONDS), ("_bytes", Unit.BYTES), ("_port", Unit.PORT)):
            assert spec.name.endswith(suffix) == (spec.unit is unit), spec.name


def test_a_default_as_the_reference_writes_it_is_read_back_as_the_default() -> None:
    texts = {spec.name: spec.default_text for spec in SETTINGS.values() if spec.default_text}
    assert load_settings(texts, REQUIRED) == load_settings({}, REQUIRED)
