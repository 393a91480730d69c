"""What a read promises: linearizable is never stale, on any node, whatever was paused meanwhile."""

from __future__ import annotations

from tests.e2e.cluster import Cluster


def test_a_leader_resumed_after_a_pause_gives_no_stale_linearizable_read(cluster: Cluster) -> None:
    old, *others = cluster.form()
    assert old.store("key", "old").status == 200
    connections = [old.connect(timeout_s=15) for _ in range(10)]
    for connection in connections:  # open them while it answers; every second one reads only after the pause
        assert connection.request("GET", "/store/key").status == 200

    old.pause()
    new = cluster.leader(among=others)
    assert new.store("key", "new").status == 200
    for connection in connections:  # these lie in the old leader's sockets when it wakes up, before any peer's message
        connection.send("GET", "/store/key?consistency=linearizable")
    old.resume()
    answers = [connection.receive() for connection in connections]

    for connection in connections:
        connection.close()
    for answer in answers:
        assert answer.status != 200 or answer.json["data"]["value"] == "new", "a stale read"
    cluster.wait_level()
    assert old.fetch_linearizable("key").data["value"] == "new"


def test_a_leader_resumed_after_a_pause_keeps_no_write_that_the_others_lack(cluster: Cluster) -> None:
    old, *others = cluster.form()
    assert old.store("key", "old").status == 200
    connection = old.connect(timeout_s=15)
    old.pause()
    new = cluster.leader(among=others)
    assert new.store("key", "new").status == 200
    connection.send("POST", "/store", {"key": "key", "value": "late"})
    old.resume()
    answer = connection.receive()
    connection.close()

    cluster.wait_level()
    values = {node.fetch_linearizable("key").data["value"] for node in cluster.running()}
    assert len(values) == 1
    if answer.status == 200:
        assert values == {"late"}, "it was acknowledged, and came last"


def test_a_linearizable_read_on_a_follower_sees_the_write_just_acknowledged(cluster: Cluster) -> None:
    leader, follower, other = cluster.form()
    with leader.connect() as writer, follower.connect() as reader, other.connect() as second:
        for number in range(100):
            assert writer.request("POST", "/store", {"key": "mine", "value": number}).status == 200
            for connection in (reader, second):
                answer = connection.request("GET", "/store/mine?consistency=linearizable")
                assert answer.data["value"] == number


def test_a_write_through_a_follower_is_seen_on_it_at_once(cluster: Cluster) -> None:
    _, follower, _ = cluster.form()
    with follower.connect() as connection:
        for number in range(100):
            assert connection.request("POST", "/store", {"key": "mine", "value": number}).status == 200
            answer = connection.request("GET", "/store/mine?consistency=linearizable")
            assert answer.data["value"] == number


def test_answers_say_where_they_come_from(cluster: Cluster) -> None:
    leader, follower, _ = cluster.form()
    stored = leader.store("key", 1)
    fetched = follower.fetch_linearizable("key")
    for answer in (stored, fetched):
        assert int(answer.headers["x-raftkv-revision"]) >= 1
        assert int(answer.headers["x-raftkv-applied-index"]) >= 1
        assert int(answer.headers["x-raftkv-term"]) == leader.term()
        assert answer.headers["x-raftkv-leader"]
    assert int(fetched.headers["x-raftkv-revision"]) >= int(stored.headers["x-raftkv-revision"])
    assert fetched.headers["x-raftkv-consistency"] == "linearizable"


def test_writes_on_a_follower_are_forwarded_redirected_or_rejected_as_asked(cluster: Cluster) -> None:
    leader, follower, _ = cluster.form()
    assert follower.store("forwarded", 1).status == 200

    redirected = follower.store("redirected", 1, "?write_mode=redirect")
    assert redirected.status == 307
    assert f":{leader.http_port}/store" in redirected.headers["location"]

    rejected = follower.store("rejected", 1, "?write_mode=reject")
    assert rejected.status == 422
    assert rejected.error == "not the leader"
    assert str(leader.http_port) in rejected.json["leader"]
    assert leader.fetch_linearizable("redirected").status == 404
    assert leader.fetch_linearizable("rejected").status == 404
