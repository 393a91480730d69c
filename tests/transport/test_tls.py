"""Mutual TLS: nodes of one authority talk, nobody else does, and the limits of the port hold as without it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftkv.errors import SettingsError, Unavailable
from raftkv.transport import TlsFiles, TransportSettings
from raftkv.transport.tls import client_context
from tests.transport.raw import dialed
from tests.transport.world import Node, World, run, world

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(directory: Path, name: str) -> tuple[Path, Path]:
    key, cert = directory / f"{name}.key", directory / f"{name}.crt"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *curve, "-keyout", key, "-out", cert, "-subj", f"/CN={name}", "-days", "2")
    return key, cert


def make_node_files(directory: Path, name: str, authority: tuple[Path, Path]) -> TlsFiles:
    key, request, cert = (directory / f"{name}.{ending}" for ending in ("key", "csr", "crt"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    authority_key, authority_cert = authority
    signing = ("-CA", authority_cert, "-CAkey", authority_key, "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return TlsFiles(cert_file=cert, key_file=key, ca_file=authority_cert)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory = tmp_path_factory.mktemp("ours")
    return make_node_files(directory, "node", make_authority(directory, "authority"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory = tmp_path_factory.mktemp("theirs")
    return make_node_files(directory, "node", make_authority(directory, "authority"))


def secure(files: TlsFiles, handshake_timeout_ms: int = 5_000, max_handshakes: int = 64) -> TransportSettings:
    return TransportSettings(
        tls=files,
        backoff_min_ms=5,
        backoff_max_ms=50,
        handshake_timeout_ms=handshake_timeout_ms,
        max_handshakes=max_handshakes,
    )


async def echo(kind: int, payload: bytes) -> bytes:
    return payload


@pytest.mark.parametrize("loop_name", ["uvloop", "asyncio"])
def test_frames_calls_and_snapshots_work_over_tls(ours: TlsFiles, loop_name: str) -> None:
    async def scenario() -> None:
        async with world() as made:
            first, second = await made.pair(secure(ours))
            large = bytes(range(256)) * 10_000
            first.transport.send(2, 1, b"small")
            first.transport.send(2, 2, large)
            await second.handler.until(lambda: len(second.handler.frames) == 2)
            assert second.handler.frames == [(1, 1, b"small"), (1, 2, large)]
            second.handler.answer = echo
            assert await first.transport.call(second.address, 1, large[:500_000], 5.0) == large[:500_000]
            await first.transport.send_snapshot(2, _chunks(large))
            assert b"".join(second.handler.chunks) == large

    run(scenario, loop_name)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def test_a_certificate_of_another_authority_is_refused_both_ways(ours: TlsFiles, theirs: TlsFiles) -> None:
    async def scenario() -> None:
        async with world() as made:
            first = await made.start(1, settings=secure(ours))
            second = await made.start(2, settings=secure(theirs))
            await assert_strangers(first, second)
            await assert_strangers(second, first)

    run(scenario)


async def assert_strangers(dialer: Node, listener: Node) -> None:
    with pytest.raises(Unavailable, match=listener.address):
        await dialer.transport.call(listener.address, 1, b"", 5.0)
    assert listener.handler.frames == []


def test_a_client_without_a_certificate_is_refused(ours: TlsFiles) -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=secure(ours))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(ours.ca_file)
            assert await _talk(node, context) in (b"", "refused")
            await _until_refused(node, "tls")

    run(scenario)


async def _talk(node: Node, context: ssl.SSLContext) -> bytes | str:
    """What the node says; with TLS 1.3 the client finishes first and learns of the refusal when it reads."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=context)
        try:
            return await reader.read(1)
        finally:
            writer.transport.abort()
    except OSError:
        return "refused"


async def _until_refused(node: Node, reason: str) -> None:
    """The listener may learn of a failed handshake a little after the client."""
    while not node.transport.stats.refused.get(reason):
        with contextlib.suppress(Unavailable):
            await node.transport.call(node.address, 1, b"", 1.0)


@pytest.mark.parametrize("is_listener_secure", [True, False])
def test_tls_and_plain_do_not_mix_and_neither_hangs(ours: TlsFiles, is_listener_secure: bool) -> None:
    async def scenario() -> None:
        async with world() as made:
            plain = await made.start(1)
            encrypted = await made.start(2, settings=secure(ours))
            dialer, listener = (plain, encrypted) if is_listener_secure else (encrypted, plain)
            with pytest.raises(Unavailable, match=listener.address):
                await dialer.transport.call(listener.address, 1, b"", 5.0)

    run(scenario)


@pytest.mark.parametrize("loop_name", ["uvloop", "asyncio"])
def test_connections_that_never_finish_tls_are_bounded_in_number_and_time(ours: TlsFiles, loop_name: str) -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=secure(ours, handshake_timeout_ms=500, max_handshakes=5))
            async with contextlib.AsyncExitStack() as stack:
                silent = [await stack.enter_async_context(dialed(node)) for _ in range(15)]
                for peer in silent:
                    assert await peer.hear_end() == b""
            refused = node.transport.stats.refused
            assert (refused["too_many"], refused["timeout"]) == (10, 5)
            assert node.transport.stats.inbound_open == 0
            await assert_serves(made, node, ours)

    run(scenario, loop_name)


async def assert_serves(made: World, node: Node, files: TlsFiles) -> None:
    caller = await made.start(1, settings=secure(files))
    node.handler.answer = echo
    assert await caller.transport.call(node.address, 1, b"hello", 5.0) == b"hello"


def test_old_versions_of_tls_are_not_spoken(ours: TlsFiles) -> None:
    assert client_context(ours).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_missing_or_wrong_file_is_a_settings_error_that_names_it(ours: TlsFiles, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(SettingsError, match=f"raft_tls_ca_file: {missing}"):
        client_context(TlsFiles(cert_file=ours.cert_file, key_file=ours.key_file, ca_file=missing))
    with pytest.raises(SettingsError, match="raft_tls_cert_file"):
        client_context(TlsFiles(cert_file=ours.ca_file, key_file=ours.key_file, ca_file=ours.ca_file))
