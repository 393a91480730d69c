"""The rooms and the arrows between them, read from the imports; and what the pure rooms must not know.

A wrong arrow is named with file and line. Imports under TYPE_CHECKING and inside functions count like all others.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"
BASE = {"types", "errors"}
MAY_USE = {
    "types": set[str](),
    "errors": set[str](),
    "raft": BASE,
    "statemachine": BASE,
    "kv": BASE | {"statemachine"},
    "storage": BASE | {"raft", "statemachine"},
    "transport": BASE,
    "runtime": BASE | {"raft", "statemachine", "kv", "storage", "transport"},
    "api": BASE | {"kv", "runtime"},
    "client": BASE,
    "sim": BASE | {"raft", "statemachine", "kv", "storage", "transport", "runtime"},
    "cli": BASE | {"kv", "storage", "runtime", "api", "client", "sim"},
    "__main__": {"cli"},
}
"""Every arrow points inwards. A room that is not here does not exist yet."""

OUTSIDE_WORLD = {
    "asyncio", "concurrent", "datetime", "fcntl", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib",
    "queue", "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "sys", "tempfile",
    "threading", "time", "uuid", "uvloop",
}  # fmt: skip
PURE = ("raft", "kv", "statemachine")
MAY_NAME = {("statemachine", "pathlib"), ("kv", "pathlib")}
"""A snapshot goes to a directory that the caller names; the pure rooms only hand its path on."""


class Import(NamedTuple):
    """`names` is empty for `import module`."""

    path: Path
    line: int
    module: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE.parent)}:{self.line} imports {self.module} ({', '.join(self.names)})"


def imports_of(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield Import(path, node.lineno, node.module or "", tuple(alias.name for alias in node.names))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE / "raftkv").parts[0].removesuffix(".py")


FILES = sorted(path for path in (SOURCE / "raftkv").rglob("*.py") if path != SOURCE / "raftkv" / "__init__.py")
OURS = [(room_of(path), found) for path in FILES for found in imports_of(path) if found.module.startswith("raftkv.")]


def test_every_room_is_on_the_map() -> None:
    assert {room_of(path) for path in FILES} == set(MAY_USE)


def test_no_arrow_points_outwards() -> None:
    wrong = [
        f"{found}: {room} may use only {', '.join(sorted(MAY_USE[room])) or 'nothing'}"
        for room, found in OURS
        if (target := found.module.split(".")[1]) != room and target not in MAY_USE[room]
    ]
    assert wrong == []


def test_no_room_uses_what_another_does_not_list() -> None:
    wrong = []
    for room, found in OURS:
        target = found.module.split(".")[1]
        if target in {room, *BASE} or not (SOURCE / "raftkv" / target).is_dir():
            continue
        if not (SOURCE / Path(*found.module.split(".")) / "__init__.py").exists():
            wrong.append(f"{found}: that is inside the room {target}; use its public list")
            continue
        listed = importlib.import_module(found.module).__all__
        wrong += [f"{found}: {name} is not in its __all__" for name in found.names if name not in listed]
    assert wrong == []


@pytest.mark.parametrize("room", sorted(name for name in MAY_USE if (SOURCE / "raftkv" / name).is_dir()))
def test_every_room_says_what_it_is_and_lists_what_it_offers(room: str) -> None:
    module = importlib.import_module(f"raftkv.{room}")
    assert module.__doc__, room
    assert "may use" in module.__doc__.lower(), f"{room}: its docstring does not say which rooms it may use"
    for name in module.__all__:
        assert hasattr(module, name), f"{room} lists {name}, which it does not have"


def test_every_module_opens_with_its_idea() -> None:
    assert [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_the_pure_rooms_know_no_clock_disk_socket_thread_or_global_randomness() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        if room not in PURE:
            continue
        for found in imports_of(path):
            module = found.module.split(".")[0]
            if module in OUTSIDE_WORLD and (room, module) not in MAY_NAME:
                wrong.append(str(found))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
                is_module = any(found.module == "random" and not found.names for found in imports_of(path))
                if is_module and node.attr != "Random":
                    wrong.append(f"{path}:{node.lineno} uses random.{node.attr}: randomness is handed in")
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                wrong.append(f"{path}:{node.lineno} is asynchronous")
    assert wrong == []


def test_nobody_catches_an_invariant_violation() -> None:
    caught = [
        (path, node.lineno, ast.unparse(node.type))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
    ]
    assert caught
    assert [f"{path}:{line}" for path, line, kinds in caught if "InvariantViolation" in kinds] == []
