"""A client that sends too much, too slowly or garbage costs its own connection and nothing else."""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress

from tests.e2e.cluster import Cluster
from tests.e2e.node import Node
from tests.e2e.waiting import eventually


def open_socket(port: int) -> socket.socket:
    return socket.create_connection(("localhost", port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Until the other side closes; a reset after it has answered is an end too."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_twenty_mebibytes_are_413(lone_node: Node) -> None:
    body = b'{"key":"big","value":"' + b"x" * (20 << 20) + b'"}'
    head = f"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with closing(open_socket(lone_node.http_port)) as connection:
        connection.sendall(head.encode())
        with suppress(OSError):  # it need not listen to all of it
            connection.sendall(body)
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")
    assert lone_node.fetch("big").status == 404


def test_twenty_mebibytes_in_chunks_are_413(lone_node: Node) -> None:
    with closing(open_socket(lone_node.http_port)) as connection:
        connection.sendall(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with suppress(OSError):
            for _ in range(320):
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_a_value_over_the_limit_is_413_and_one_at_the_limit_is_stored(lone_node: Node) -> None:
    assert lone_node.store("fits", "x" * (65536 - 2)).status == 200
    assert lone_node.store("fits", "x" * (65536 - 1)).status == 413
    assert len(lone_node.fetch("fits").data["value"]) == 65534


def test_a_stalled_body_is_408(lone_node: Node) -> None:
    with closing(open_socket(lone_node.http_port)) as connection:
        connection.sendall(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert lone_node.store("others", "go on").status == 200
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_a_stalled_header_ends_the_connection(lone_node: Node) -> None:
    with closing(open_socket(lone_node.http_port)) as connection:
        connection.sendall(b"GET /store/foo HTTP/1.1\r\nHost:")
        assert read_all(connection)[:13] in {b"", b"HTTP/1.1 408 "}


def test_an_endless_header_is_refused(lone_node: Node) -> None:
    with closing(open_socket(lone_node.http_port)) as connection:
        with suppress(OSError):
            connection.sendall(b"GET /store/foo HTTP/1.1\r\n" + b"X-Long: " + b"x" * (4 << 20) + b"\r\n\r\n")
        assert read_all(connection)[:12] in {b"", b"HTTP/1.1 431", b"HTTP/1.1 400"}
    assert lone_node.get_raw("/health").status == 200


def test_garbage_on_the_http_port_is_400(lone_node: Node) -> None:
    with closing(open_socket(lone_node.http_port)) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n")
        assert read_all(connection)[:12] in {b"", b"HTTP/1.1 400"}
    assert lone_node.get_raw("/health").status == 200


def test_garbage_on_the_peer_port_changes_nothing(cluster: Cluster) -> None:
    nodes = cluster.form()
    term = nodes[0].term()
    samples = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 4096,
        b"\xff" * 4096,
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        (1 << 31).to_bytes(4, "little") + os.urandom(65536),
        *(os.urandom(1 << size) for size in range(0, 20, 2)),
    ]
    for node in nodes:
        for sample in samples:
            with suppress(OSError), closing(open_socket(node.raft_port)) as connection:  # it may hang up at any time
                connection.sendall(sample)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
    for node in nodes:
        assert node.store("fine", node.node_id).status == 200
    assert nodes[0].is_leader()
    assert nodes[0].term() == term


def test_connections_that_only_stay_open_keep_nobody_out(cluster: Cluster) -> None:
    node = cluster.add("node1", max_connections=64, idle_timeout_ms=500).start().wait_ready()
    idle = [open_socket(node.http_port) for _ in range(200)]
    try:
        eventually(lambda: node.store("still", "served").status == 200, "idle connections make room")
    finally:
        for connection in idle:
            connection.close()
