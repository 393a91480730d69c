"""Runs the `console` and `python` blocks of a page for real: programs in the background, then one after the other.

A line that begins with `$ ` is a command; the lines up to the next one are its output, in which `…` stands for
anything. No lines mean that the output is not shown. In a block that is marked `terminals` each command is a program
that goes on running. Ports are replaced by free ones, because others may use those of the page.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.cli.processes import free_ports

_BLOCK = re.compile(r"^```(?P<kind>console|python)(?P<mark>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"\b(?:222[1-9]|111[1-9])\b")
_START_TIMEOUT_SECONDS = 60


class Command(NamedTuple):
    text: str
    output: str
    is_program: bool


def commands_of(page: Path) -> list[Command]:
    found = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["kind"] == "python":
            found.append(Command(f"python -c {shlex.quote(block['text'])}", "", is_program=False))
            continue
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            text, _, output = part.partition("\n")
            found.append(Command(text, output.rstrip("\n"), "terminals" in block["mark"]))
    return found


def run_page(page: Path, directory: Path) -> list[str]:
    """Run all commands of a page in `directory`; returns what was not as the page says."""
    commands = commands_of(page)
    assert commands, page
    written = sorted({port for command in commands for port in _PORT.findall(command.text)})
    ports = dict(zip(written, map(str, free_ports(len(written))), strict=True))

    def here(text: str) -> str:
        return _PORT.sub(lambda match: ports[match[0]], text)

    differences = []
    environment = _environment(directory)
    with contextlib.ExitStack() as stack:
        for command in commands:
            if command.is_program:
                stack.enter_context(_running(here(command.text), directory, environment))
                continue
            name, _, value = command.text.removeprefix("export ").partition("=")
            if command.text.startswith("export "):
                environment[name] = here(value)
                continue
            done = subprocess.run(
                ["bash", "-c", here(command.text)],
                cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
            output = done.stdout.rstrip("\n")
            if done.returncode or (command.output and not _matches(output, here(command.output))):
                differences.append(f"$ {command.text}\nsaid ({done.returncode}):\n{output}\n{done.stderr}")
    return differences


def _matches(output: str, expected: str) -> bool:
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, output, re.DOTALL) is not None


def _environment(directory: Path) -> dict[str, str]:
    """As after `. .venv/bin/activate`; where the machine has no curl, a small one of our own is put on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAFT", "SERVER_PORT"))}
    paths = [str(Path(sys.executable).parent), inherited.get("PATH", "")]
    if shutil.which("curl") is None:
        programs = directory / "programs"
        programs.mkdir()
        curl = programs / "curl"
        curl.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n')
        curl.chmod(0o755)
        paths.append(str(programs))
    return {**inherited, "PATH": os.pathsep.join(paths), "NO_COLOR": "1", "COLUMNS": "120"}


@contextlib.contextmanager
def _running(text: str, directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """A program of the page, from when it says that it listens until the end of the page, where it must exit with 0."""
    words = shlex.split(text)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    process = subprocess.Popen(
        words[len(settings) :],
        cwd=directory,
        env={**environment, **settings},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            assert process.stderr is not None
            assert any("listening" in line for line in process.stderr), text
            yield
            process.terminate()
            _, log = process.communicate(timeout=_START_TIMEOUT_SECONDS)
            assert process.returncode == 0, log
    except BaseException:
        process.kill()
        raise


def curl(words: list[str]) -> str:
    """The few options of curl that the pages use."""
    method, headers, body, url = "GET", {}, None, ""
    remaining = iter(words)
    for word in remaining:
        if word == "-X":
            method = next(remaining)
        elif word == "-H":
            name, _, value = next(remaining).partition(":")
            headers[name] = value.strip()
        elif word == "-d":
            body = next(remaining)
        else:
            url = word
    return httpx.request(method, url, headers=headers, content=body, trust_env=False).text


if __name__ == "__main__":
    sys.stdout.write(curl(sys.argv[1:]))
