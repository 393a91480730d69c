"""A write whose fate is open says so: 504 and `"outcome": "unknown"`, never "failed"."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import MakeCluster
from tests.e2e.waiting import eventually, eventually_answers


def test_a_write_without_a_majority_is_unknown_and_no_rejected_one_is_applied(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(request_timeout_ms=1500)
    leader, node2, node3 = cluster.form()
    node2.pause()
    node3.pause()

    keys = [f"open{number}" for number in range(8)]
    with ThreadPoolExecutor(len(keys)) as pool:
        answers = dict(zip(keys, pool.map(lambda key: leader.store(key, key), keys), strict=True))

    for answer in answers.values():
        assert (answer.status, answer.outcome) in {(504, "unknown"), (503, "rejected")}, answer
    rejected = [key for key, answer in answers.items() if answer.outcome == "rejected"]
    assert len(rejected) < len(keys), "the first was proposed before the leader could notice"

    # By now the leader has heard no majority for longer than an election timeout, so it takes nothing more.
    late = eventually_answers(lambda: leader.store("late", 1), 503, "the old leader refuses")
    assert late.outcome == "rejected"
    node2.resume()
    node3.resume()
    assert eventually(lambda: cluster.leader().store("after", 1).status == 200, "writes work again")
    cluster.wait_level()
    for key in (*rejected, "late"):
        assert cluster.leader().fetch_linearizable(key).status == 404, "what was rejected is not applied"
    for key in keys:  # applied or not, all nodes agree on it
        assert len({node.fetch(key).status for node in cluster.running()}) == 1, key


def test_without_a_leader_writes_and_linearizable_reads_are_refused_and_local_reads_go_on(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(request_timeout_ms=1000)
    node1, node2, node3 = cluster.form()
    assert node1.store("here", 1).status == 200
    cluster.wait_level()
    for node in (node1, node2):
        node.kill()

    refused = eventually_answers(lambda: node3.store("there", 1), 503, "node3 knows of no leader")
    assert refused.outcome == "rejected"
    assert node3.fetch_linearizable("here").status in {503, 504}
    assert node3.fetch("here").data["value"] == 1
    assert node3.get_raw("/ready").status == 503
