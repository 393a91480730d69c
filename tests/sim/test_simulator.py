"""The simulator itself: a seed gives the same run every time, runs find what is planted, finds can be replayed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.bank import Bank
from raftkv.errors import InvalidInput
from raftkv.sim import KINDS, Fault, Outcome, Plan, draw, load_plan, run, save_plan, shrink
from raftkv.sim.checks import Checks, Violation

SHORT = Plan(seed=0, duration_s=20.0)
DIGEST = "import sys; from raftkv.sim import Plan, run; print(run(Plan(int(sys.argv[1]), duration_s=20.0)).digest)"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_gives_the_same_run_in_every_process_byte_for_byte(seed: int) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {run(dataclasses.replace(SHORT, seed=seed)).digest + "\n"}


def test_other_seeds_give_other_runs() -> None:
    assert len({run(dataclasses.replace(SHORT, seed=seed)).digest for seed in range(4)}) == 4


def test_many_seeds_pass_and_really_did_something() -> None:
    outcomes = [run(dataclasses.replace(SHORT, seed=seed)) for seed in range(100, 125)]
    assert [(outcome.plan.seed, outcome.violation) for outcome in outcomes if outcome.violation] == []
    assert sum(outcome.acknowledged_count for outcome in outcomes) > 300
    assert sum(outcome.found_count for outcome in outcomes) > 200
    assert sum(outcome.leader_count for outcome in outcomes) > 50
    assert sum(outcome.fault_count for outcome in outcomes) > 200


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_fault_happens_and_is_survived(kind: str) -> None:
    plan = dataclasses.replace(SHORT, seed=7, kinds=frozenset({kind}))
    outcome = run(plan)
    assert outcome.violation is None
    assert [event for event in outcome.events if event.text.startswith(f"fault: {kind}")] != []


def test_without_faults_there_is_one_leader_and_every_write_is_acknowledged() -> None:
    outcome = run(dataclasses.replace(SHORT, seed=3, spare_count=0, faults=()))
    assert outcome.violation is None
    assert outcome.leader_count == 1
    assert outcome.fault_count == 0
    assert all(not operation.is_open for operation in outcome.history)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails whenever a power cut has been seen: a bug that one fault alone brings about."""
    really = Checks.ended

    def ended(self: Checks, node: object) -> None:
        really(self, node)  # type: ignore[arg-type]
        if getattr(node, "why_ended", "") == "power cut":
            self.violation(f"planted at {self.trace.events[-1].at_s}")

    monkeypatch.setattr(Checks, "ended", ended)


def failing() -> Outcome:
    for seed in range(50):
        outcome = run(dataclasses.replace(SHORT, seed=seed))
        if outcome.violation is not None and len(outcome.plan.planned_faults()) > 5:
            return outcome
    raise AssertionError("no seed sees the planted bug")


@pytest.mark.usefixtures("planted")
def test_a_failing_run_shrinks_to_the_fault_that_matters_and_replays_from_its_file(tmp_path: Path) -> None:
    outcome = failing()
    small = shrink(outcome)
    assert small.plan.faults is not None
    assert len(small.plan.faults) == 1
    assert small.plan.faults[0].kind.startswith("power-cut")
    save_plan(small.plan, tmp_path / "plan.json")
    again = run(load_plan(tmp_path / "plan.json"))
    assert (again.violation, again.digest) == (small.violation, small.digest)


def test_only_what_fails_can_be_shrunk() -> None:
    with pytest.raises(ValueError, match="without a violation"):
        shrink(run(dataclasses.replace(SHORT, duration_s=1.0)))


@pytest.mark.parametrize("text", ["", "{}", '{"seed": "one"}', "[1, 2]"])
def test_a_file_without_a_plan_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"plan\.json"):
        load_plan(path)


def test_a_picture_shows_lanes_faults_messages_and_the_violation() -> None:
    fault = Fault(3.0, "kill", ("n1", "n2"), 2.0)
    outcome = run(dataclasses.replace(SHORT, duration_s=5.0, faults=(fault,)), keeps_frames=True)
    outcome = dataclasses.replace(outcome, violation=Violation(4.0, "<b>nothing</b> really"))
    page = draw(outcome)
    assert "&lt;b&gt;nothing&lt;/b&gt; really" in page
    assert "<b>nothing" not in page
    assert page.count("<svg") == 2
    assert "kill n1,n2 for 2.00 s" in page
    assert "leader of term" in page
    assert "AppendEntries" in page


# The command


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "raftkv", "sim", *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_runs_seeds_in_processes_and_says_what_it_did(tmp_path: Path) -> None:
    done = command("--seeds", "4", "--seconds", "5", "--jobs", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(each["seed"] for each in report["runs"]) == [0, 1, 2, 3]
    assert all(each["violation"] is None and each["simulated_seconds"] > 5 for each in report["runs"])


def test_the_command_tells_one_run_in_full_and_draws_it(tmp_path: Path) -> None:
    done = command("--seeds", "1", "--first-seed", "5", "--seconds", "5", "--picture", "p.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "leader of term" in done.stdout
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


def test_an_unknown_kind_of_fault_is_refused_by_name(tmp_path: Path) -> None:
    done = command("--faults", "kill,meteorite", cwd=tmp_path)
    assert done.returncode == 2
    assert "'meteorite'" in done.stderr


def test_the_kinds_of_faults_can_be_listed(tmp_path: Path) -> None:
    assert command("--faults", "list", cwd=tmp_path).stdout.split() == list(KINDS)


# State machines of one's own


class Forgetful(Bank):
    """Its snapshot leaves an account out."""

    def snapshot(self) -> bytes:
        return json.dumps(dict(list(self.balances.items())[1:]), sort_keys=True).encode()


class Moody(Bank):
    """Every copy answers in its own way."""

    def apply(self, command: bytes) -> bytes:
        return super().apply(command) + b" (%d)" % (id(self) % 1_000_003)


def test_a_sound_state_machine_passes_with_every_answer_checked() -> None:
    plan = Plan(seed=0, duration_s=30.0, state_machine="examples.bank:Bank")
    outcomes = [run(dataclasses.replace(plan, seed=seed)) for seed in range(8)]
    assert [outcome.violation for outcome in outcomes if outcome.violation] == []
    assert sum(outcome.acknowledged_count for outcome in outcomes) > 200


@pytest.mark.parametrize(
    ("name", "told"), [("Forgetful", "snapshot is not deterministic"), ("Moody", "apply is not deterministic")]
)
def test_a_state_machine_that_is_not_sound_is_found_out(name: str, told: str) -> None:
    plan = Plan(seed=0, duration_s=30.0, state_machine=f"{__name__}:{name}")
    violations = [run(dataclasses.replace(plan, seed=seed)).violation for seed in range(8)]
    assert any(violation is not None and told in violation.text for violation in violations)


@pytest.mark.parametrize("spec", ["nowhere:Bank", "examples.bank:Nobody", "examples.bank", "examples.bank:ACCOUNTS"])
def test_what_is_no_state_machine_is_refused_by_name(spec: str) -> None:
    with pytest.raises(InvalidInput, match=spec.split(":", maxsplit=1)[0]):
        run(Plan(seed=0, state_machine=spec))
