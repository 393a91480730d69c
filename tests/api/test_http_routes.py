"""The routes about the cluster and the process."""

from __future__ import annotations

import asyncio
import io
import json
import marshal
import pstats
from pathlib import Path

import pytest

from raftkv import errors
from raftkv.api.http import routes
from tests.api.fake_node import FakeOutcome
from tests.api.wire import LANES, World, play, request, store


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("slash", ["", "/"])
def test_join_and_remove_answer_as_the_reference(slash: str) -> None:
    async def scenario(world: World) -> None:
        asked = body(node_id="node2", raft_address="localhost:1112")
        reply = await world.ask("POST", f"/raft/join{slash}", asked)
        assert reply.status == 200
        assert reply.json["message"] == "node node2 at localhost:1112 joined successfully"
        assert reply.json["data"]["state"] == "leader"
        reply = await world.ask("POST", f"/raft/remove{slash}", asked)
        assert reply.status == 200
        assert reply.json["message"] == "node node2 removed successfully"
        assert (await world.ask("POST", "/raft/remove", body(node_id="node3"))).status == 200
        calls = [("join", "node2", "localhost:1112"), ("remove", "node2"), ("remove", "node3")]
        assert world.node.calls == calls

    play(scenario)


def test_a_join_that_takes_long_is_202_with_its_progress() -> None:
    async def scenario(world: World) -> None:
        world.node.join_outcome = FakeOutcome(is_complete=False, progress="half")
        reply = await world.ask("POST", "/raft/join", body(node_id="node2", raft_address="h:1"))
        assert (reply.status, reply.json["progress"]) == (202, "half")

    play(scenario)


def test_stats_and_transfer() -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("GET", "/raft/stats/")
        assert reply.json == {"message": "Here is the raft status", "data": world.node.stats()}
        assert reply.json["data"]["term"] == 3
        assert reply.headers["x-raftkv-term"] == "3"
        reply = await world.ask("POST", "/raft/transfer", body(node_id="node2"))
        assert reply.json["message"] == "leadership transferred to node2"
        assert (await world.ask("POST", "/raft/transfer")).status == 200
        assert (await world.ask("POST", "/raft/transfer", b"{}")).status == 200
        assert world.node.calls == [("transfer", "node2"), ("transfer", None), ("transfer", None)]

    play(scenario)


@pytest.mark.parametrize(
    ("target", "sent", "status"),
    [
        ("/raft/join", b"{", 400),
        ("/raft/join", b'{"x":' + b"[" * 50_000, 400),
        ("/raft/join", b'{"node_id":"a","raft_address":"\xff"}', 400),
        ("/raft/join", b'{"node_id":"a"}', 422),
        ("/raft/join", b'{"node_id":5,"raft_address":"h:1"}', 422),
        ("/raft/join", b'{"node_id":"  ","raft_address":"h:1"}', 422),
        ("/raft/join", b'{"node_id":"a","raft_address":"nowhere"}', 422),
        ("/raft/remove", b'{"node_id":""}', 422),
        ("/raft/remove", b"{}", 422),
        ("/raft/transfer", b'{"node_id":""}', 422),
    ],
)
def test_wrong_bodies_are_refused(target: str, sent: bytes, status: int) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("POST", target, sent)
        assert (reply.status, reply.json["outcome"]) == (status, "rejected")
        assert (await world.ask("POST", target, sent, content_type="text/plain")).status == 415
        assert not world.node.calls

    play(scenario)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MembershipRefused("nobody answers at h:1"), 409),
        (errors.ConfigurationInProgress("another change is under way"), 409),
        (errors.NoLeader("no leader is known"), 503),
        (errors.OutcomeUnknown("no answer in time"), 504),
    ],
)
def test_refused_changes_of_members(error: errors.RaftkvError, status: int) -> None:
    async def scenario(world: World) -> None:
        world.node.error = error
        for target in ("/raft/join", "/raft/remove", "/raft/transfer"):
            reply = await world.ask("POST", target, body(node_id="a", raft_address="h:1"))
            assert (reply.status, reply.json["error"]) == (status, str(error))

    play(scenario)


def test_health_is_the_process_and_ready_is_the_cluster() -> None:
    async def scenario(world: World) -> None:
        assert (await world.ask("GET", "/ready")).json == {"ready": True, "leader": "node1"}
        world.node.is_ready = False
        reply = await world.ask("GET", "/ready")
        assert (reply.status, reply.json["reason"]) == (503, "catching up with the leader")
        world.node.move(leader_node_id="")
        assert (await world.ask("GET", "/ready")).json["reason"] == "no leader is known"
        world.node.members = ["node2"]
        assert "was removed, or is not joined yet" in (await world.ask("GET", "/ready")).json["reason"]
        assert (await world.ask("GET", "/health")).status == 200
        assert (await world.ask("HEAD", "/health")).status == 200

    play(scenario)


@pytest.mark.parametrize(
    "target", ["/", "/nowhere", "/store2", "/raft", "/raft/joined", "//store/a", "/debug/pprof/a/b"]
)
def test_unknown_routes_are_404_in_json(target: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("GET", target)
        assert (reply.status, reply.json["code"]) == (404, "route_not_found")

    play(scenario)


@pytest.mark.parametrize("route", [r for r in routes.ALL if "{" not in r])
def test_wrong_methods_are_405_with_allow(route: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("PATCH", route)
        assert (reply.status, reply.json["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"] in {"GET, HEAD", "POST"}

    play(scenario)


@pytest.mark.parametrize("lane", LANES)
def test_metrics_count_every_request_by_route_method_and_status(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(store("a", b"1") + request("GET", "/store/a") * 3 + request("GET", "/store/b"))
        await client.send(request("GET", "/store/a?consistency=linearizable") + request("DELETE", "/store/a"))
        await client.send(request("GET", "/nowhere"))
        for _ in range(8):
            await client.reply()
        await world.raw(b"garbage\r\n\r\n")
        text = (await world.ask("GET", "/metrics")).body.decode()
        for line in (
            'raftkv_http_requests_total{method="POST",route="/store",status="200"} 1.0',
            'raftkv_http_requests_total{method="GET",route="/store/{key}",status="200"} 4.0',
            'raftkv_http_requests_total{method="GET",route="/store/{key}",status="404"} 1.0',
            'raftkv_http_requests_total{method="DELETE",route="/store/{key}",status="200"} 1.0',
            'raftkv_http_requests_total{method="GET",route="other",status="404"} 1.0',
            'raftkv_http_requests_total{method="",route="other",status="400"} 1.0',
            'raftkv_http_request_seconds_count{method="GET",route="/store/{key}"} 5.0',
            'raftkv_http_request_seconds_bucket{le="+Inf",method="GET",route="/store/{key}"} 5.0',
            "raftkv_http_connections 2.0",
        ):
            assert line in text.splitlines()
        open_metrics = await world.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert open_metrics.body.endswith(b"# EOF\n")

    play(scenario, lane)


def test_profiles_are_closed_unless_allowed() -> None:
    async def scenario(world: World) -> None:
        for target in ("/debug/pprof", "/debug/pprof/", "/debug/pprof/heap"):
            reply = await world.ask("GET", target)
            assert (reply.status, reply.json["code"]) == (403, "profiling_off")

    play(scenario, "fast", None, is_profiling=False)


def test_profiles_open_in_the_tools_they_are_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        index = (await world.ask("GET", "/debug/pprof/")).body.decode()
        assert "profile?seconds=5" in index
        speedscope = (await world.ask("GET", "/debug/pprof/profile?seconds=0.05")).json
        assert speedscope["$schema"].startswith("https://www.speedscope.app")
        names = [frame["name"] for frame in speedscope["shared"]["frames"]]
        assert any("play" in name for name in names)
        for profile in speedscope["profiles"]:
            assert len(profile["samples"]) == len(profile["weights"])
            assert all(0 <= frame < len(names) for sample in profile["samples"] for frame in sample)
        collapsed = (await world.ask("GET", "/debug/pprof/profile?seconds=0.05&format=collapsed")).body.decode()
        assert all(line.rpartition(" ")[2].isdigit() and ";" in line for line in collapsed.splitlines())
        calls = (await world.ask("GET", "/debug/pprof/profile?seconds=0.05&format=pstats")).body
        assert marshal.loads(calls)  # noqa: S302 - our own answer
        (tmp_path / "raftkv.pstats").write_bytes(calls)
        assert pstats.Stats(str(tmp_path / "raftkv.pstats"), stream=io.StringIO()).total_calls > 0  # type: ignore[attr-defined]
        assert b"objects tracked" in (await world.ask("GET", "/debug/pprof/heap")).body
        assert b"not freed" in (await world.ask("GET", "/debug/pprof/heap?seconds=0.01")).body
        assert b"MainThread" in (await world.ask("GET", "/debug/pprof/threads")).body
        assert b"run_periodically" in (await world.ask("GET", "/debug/pprof/tasks")).body
        assert b"run_periodically" in (await world.ask("GET", "/debug/pprof/goroutine")).body
        assert (await world.ask("GET", "/debug/pprof/cmdline")).status == 200

    play(scenario)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("profile?seconds=0", 400),
        ("profile?seconds=-1", 400),
        ("profile?seconds=nan", 400),
        ("profile?seconds=1e9", 400),
        ("profile?seconds=x", 400),
        ("profile?format=exe", 400),
        ("nothing", 404),
    ],
)
def test_wrong_questions_for_profiles(target: str, status: int) -> None:
    async def scenario(world: World) -> None:
        assert (await world.ask("GET", f"/debug/pprof/{target}")).status == status

    play(scenario)


def test_one_profile_at_a_time() -> None:
    async def scenario(world: World) -> None:
        first = asyncio.create_task(world.ask("GET", "/debug/pprof/profile?seconds=0.3"))
        await world.until(lambda: any(c.is_busy for c in world.server._connections()))
        assert (await world.ask("GET", "/debug/pprof/profile?seconds=0.1")).status == 503
        assert (await world.ask("GET", "/store/a")).status == 404  # the node goes on meanwhile
        assert (await first).status == 200

    play(scenario)
