"""The load generator counts what was really answered."""

from __future__ import annotations

import asyncio
import json
import random
import re

import pytest

from raftkv.cli.load import LATENCY_STEP, Latencies, Load, LoadRun
from tests.cli.command import Command
from tests.client.http_server import HangUp, Reply, ScriptedServer, Seen, ok, refused


def test_quantiles_are_right_within_one_bucket() -> None:
    seconds = [random.Random(1).lognormvariate(-6, 1) for _ in range(5000)]
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    ordered = sorted(seconds)
    for fraction in (0.5, 0.9, 0.99, 1.0):
        true = ordered[max(int(fraction * len(ordered)) - 1, 0)]
        assert true <= latencies.quantile(fraction) <= true * LATENCY_STEP
    assert Latencies().quantile(0.5) == 0.0


def run_load(server: ScriptedServer, write_percent: float, stop_after: int) -> LoadRun:
    address = ("127.0.0.1", int(server.address.rpartition(":")[2]))
    load = Load(servers=[address], connection_count=2, key_count=5, value_bytes=9, write_percent=write_percent)

    async def main() -> LoadRun:
        run, until = LoadRun(load), asyncio.Event()
        running = asyncio.ensure_future(run.run(until))
        while run.completed + sum(sum(tally.failures.values()) for tally in run.tallies.values()) < stop_after:
            await asyncio.wait((running,), timeout=0.01)
        until.set()
        await running
        return run

    return asyncio.run(main())


def test_requests_are_as_asked_and_each_answer_counts_once() -> None:
    with ScriptedServer(ok({})) as server:
        run = run_load(server, 100, stop_after=20)
        assert run.tallies["put"].latencies.count == run.completed
        assert len(server.seen) - 2 <= run.completed <= len(server.seen)
        for seen in server.seen:
            body = json.loads(seen.body)
            assert re.fullmatch(r"bench-0000000[0-4]", body["key"])
            assert len(json.dumps(body["value"])) == 9


def test_failures_are_told_apart_and_not_counted_as_done() -> None:
    def reply(seen: Seen) -> Reply:
        return ok({}) if seen.method == "GET" else refused(503, "no_leader")

    with ScriptedServer(reply) as server:
        run = run_load(server, 50, stop_after=40)
    assert run.tallies["put"].latencies.count == 0
    assert list(run.tallies["put"].failures) == ["HTTP 503"]
    assert run.tallies["get"].latencies.count > 0
    assert not run.tallies["get"].failures


def test_a_lost_connection_is_counted_and_opened_again() -> None:
    with ScriptedServer(HangUp(), HangUp(), ok({})) as server:
        run = run_load(server, 100, stop_after=10)
    assert run.tallies["put"].failures["connection lost"] == 2
    assert run.completed >= 8


def test_the_command_prints_a_table_or_json(raftkv: Command) -> None:
    with ScriptedServer(ok({})) as server:
        options = ("--seconds", "0.1", "--warmup-seconds", "0", "-c", "2", "-s", server.address)
        table = raftkv("bench", *options)
        report = json.loads(raftkv("bench", "--json", "--mix", "0/100", *options).out)
    assert table.exit_code == 0
    assert "p99" in table.out
    assert [row["request"] for row in report["results"]] == ["get"]
    assert report["results"][0]["count"] > 0


def test_a_server_that_answers_only_errors_fails(raftkv: Command) -> None:
    with ScriptedServer(refused(503, "no_leader")) as server:
        done = raftkv("bench", "--seconds", "0.1", "--warmup-seconds", "0", "-c", "1", "-s", server.address)
    assert done.exit_code == 4
    assert "not one request" in done.err
    assert "HTTP 503" in done.out


@pytest.mark.parametrize("mix", ["50", "60/50", "a/b"])
def test_a_mix_that_is_not_a_hundred_is_refused(raftkv: Command, mix: str) -> None:
    assert "together are 100" in raftkv("bench", "--mix", mix).err
