"""Writes the pages of docs/reference that are made from the code; `tests/test_docs.py` checks that they are current."""

from __future__ import annotations

import asyncio
import inspect
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from prometheus_client import Metric

from raftkv import errors
from raftkv.api import ExitCode, exit_code, http_status, request_errors
from raftkv.api.http import HttpServer
from raftkv.api.status import outcome
from raftkv.cli.app import app
from raftkv.errors import RaftkvError, error_code
from raftkv.runtime import SETTINGS, Node, Settings, SettingSpec, Unit

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Made from the code by `make reference`; edit the code instead. -->"


def settings_page() -> str:
    lines = [
        "# Settings", NOTE, "",
        "`raftkv serve` takes every setting as a flag, as an environment variable, and as a key of a TOML file",
        "(`--config FILE`, or `RAFTKV_CONFIG`). Flags win over the environment, the environment over the file, the",
        "file over the default. An environment variable that is set but empty counts as not given.",
        "",
        "A wrong value is refused before anything starts, by the name of where it came from. So are unknown keys of",
        "the file, and unknown names in the environment that begin with `RAFTKV_`. (In Kubernetes, a service named",
        "`raftkv` puts such names there; switch them off with `enableServiceLinks: false`.)",
        "",
        "Sizes are bytes; `KiB`, `MiB` and `GiB` may follow the number. Times are whole milliseconds. The TOML key is",
        "the name in the first column; lists may be TOML lists of texts. All ranges include both ends.",
    ]  # fmt: skip
    groups = dict.fromkeys(spec.group for spec in SETTINGS.values())
    for group in groups:
        lines += ["", f"## {group}", "", "| name | flag | environment | unit | allowed | default |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        rows = [spec for spec in SETTINGS.values() if spec.group == group]
        lines += [_setting_row(spec) for spec in rows]
        lines += ["", *(f"- `{spec.name}`: {spec.help}" for spec in rows)]
    return "\n".join(lines) + "\n"


def _setting_row(spec: SettingSpec) -> str:
    default = f"`{spec.default_text}`" if spec.default_text else "required" if spec.is_required else "none"
    unit = "one of" if spec.unit is Unit.CHOICE else spec.unit.value.replace("|", " or ")
    cells = (f"`{spec.name}`", f"`{spec.flag}`", f"`{spec.environment}`", unit, spec.allowed_text, default)
    return f"| {' | '.join(cells)} |"


def error_classes() -> list[type[RaftkvError]]:
    """Every error of the project, in the order of the sources."""
    found = [*vars(errors).values(), *vars(request_errors).values()]
    return list(dict.fromkeys(kind for kind in found if isinstance(kind, type) and issubclass(kind, RaftkvError)))


def errors_page() -> str:
    tree = inspect.getdoc(errors) or ""
    lines = [
        "# Errors", NOTE, "",
        "Every error answers three questions: whose fault is it, did the request happen, may I retry?",
        "",
        "- `outcome` `rejected`: surely not applied. After a 503 or 504 the same request may be sent again as it is.",
        "- `outcome` `unknown`: perhaps applied, perhaps not, or not yet. Read before you repeat it.",
        "",
        "The body of an error answer is",
        '`{"error": text, "code": code, "outcome": "rejected" or "unknown"}`, for `not_leader` with `leader`, the',
        "leader's HTTP address (empty while none is known), and `leader_node_id`. Programs should look at `code` and",
        "`outcome`; the text may change. The Python client raises the classes below (`from raftkv.errors import …`),",
        "and the `raftkv` command ends with the exit code.",
        "",
        "```", tree.partition("\n\n")[2].partition("\n\nFacts are")[0], "```", "",
        "| class | `code` | HTTP | exit code | outcome | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for kind in error_classes():
        error = kind.__new__(kind)
        meaning = _first_sentence(inspect.getdoc(kind) or "")
        status = str(http_status(error)) if kind is not errors.NotLeader else "422, or 307 in write mode `redirect`"
        cells = (
            f"`{kind.__name__}`",
            f"`{error_code(kind)}`",
            status,
            str(int(exit_code(error))),
            outcome(error),
            meaning,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Exit codes", "", "| code | meaning |", "| --- | --- |"]
    lines += [f"| {int(code)} | {_EXIT_MEANINGS[code]} |" for code in ExitCode]
    lines += ["| 130 | interrupted by Ctrl-C |"]
    return "\n".join(lines) + "\n"


_EXIT_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed for another reason; the text names it",
    ExitCode.USAGE: "wrong usage, wrong setting, or a request that can never work",
    ExitCode.NOT_FOUND: "the key has no value",
    ExitCode.UNAVAILABLE: "surely not done, and may work later: no server reached, no leader, overloaded, disk full",
    ExitCode.OUTCOME_UNKNOWN: "perhaps done: read before you repeat it",
    ExitCode.REFUSED: "refused, nothing changed: an unsafe join or remove, or a route that is switched off",
    ExitCode.STORAGE: "the disk, or what is on it, is damaged, in use or not ours",
}


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


def commands(group: Any = None, path: tuple[str, ...] = ("raftkv",)) -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with its full name."""
    group = group if group is not None else typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def cli_page() -> str:
    lines = [
        "# The command line", NOTE, "",
        "`raftkv --help` and `raftkv COMMAND --help` show the same. Results go to standard output, remarks and errors",
        "to standard error. Exit codes are listed in [errors.md](errors.md#exit-codes).",
    ]  # fmt: skip
    for name, command in commands():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join([name, *(_argument(p) for p in arguments), "[OPTIONS]"])
        lines += ["", f"## {name}", "", f"`{usage}`", "", inspect.cleandoc(command.help or "")]
        if name == "raftkv serve":
            lines += ["", "Its options are the [settings](settings.md), and `--config FILE`."]
            continue
        rows = [f"| `{p.metavar or p.name.upper()}` | {_cell(p.help)} | |" for p in arguments]
        rows += [f"| `{', '.join([*p.opts, *p.secondary_opts])}` | {_cell(p.help)} | {_default(p)} |" for p in options]
        if rows:
            lines += ["", "| | | default |", "| --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _default(option: Any) -> str:
    is_given = option.default is not None and option.default is not False
    default = f"`{option.default}`" if is_given and str(option.default) else ""
    return f"{default} (`{option.envvar}`)" if option.envvar else default


def metric_families() -> list[Metric]:
    """What a node with its HTTP interface exports, gathered from one that really runs."""

    async def main() -> list[Metric]:
        with tempfile.TemporaryDirectory() as directory:
            data_dir = Path(directory) / "node"
            settings = Settings(
                node_id="node1",
                data_dir=data_dir,
                server_port=0,
                raft_port=0,
                advertise_server_address="node1:2221",
                advertise_raft_address="node1:1111",
                disk_reserve_bytes=0,
            )
            node = await Node.start(settings)
            server = HttpServer(node, settings)
            try:
                await server.start()
                return list(node.metrics_registry.collect())
            finally:
                await server.stop()
                await node.stop()

    return asyncio.run(main())


def exported_name(family: Metric) -> str:
    """As `/metrics` shows it: counters end in `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def metrics_page() -> str:
    lines = [
        "# Metrics", NOTE, "",
        "`GET /metrics` answers in the Prometheus text format, and in OpenMetrics when the request accepts it.",
        "Times are in seconds, sizes in bytes.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for family in metric_families():
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        lines.append(f"| `{exported_name(family)}` | {family.type} | {labels} | {_cell(family.documentation)} |")
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "errors.md": errors_page, "cli.md": cli_page, "metrics.md": metrics_page}


def main() -> None:
    for name, render in PAGES.items():
        (REFERENCE / name).write_text(render(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
