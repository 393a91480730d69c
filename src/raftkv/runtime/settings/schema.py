"""What a row of the settings table is made of, and what makes a single value wrong.

Rules between settings are in `rules`, the rows themselves in `fields`.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any, NamedTuple

from raftkv.errors import SettingsError
from raftkv.runtime.addresses import split_reachable_address

NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Unit(enum.StrEnum):
    """What a value is, for parsing and for the reference."""

    TEXT = "text"
    PATH = "path"
    ADDRESS = "host:port"
    MEMBERS = "name=host:port, …"
    ADDRESSES = "host:port, …"
    PORT = "port"
    MILLISECONDS = "ms"
    BYTES = "bytes"
    COUNT = "count"
    FLAG = "true|false"
    CHOICE = "choice"


class InitialMember(NamedTuple):
    """One server of `initial_cluster`."""

    node_id: str
    raft_address: str


class Profiling(enum.StrEnum):
    """`auto` is on only while the HTTP interface listens on loopback."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclasses.dataclass(frozen=True, slots=True)
class SettingSpec:
    """One row of the table. `first` and `last` are both allowed values; `zero_is` says what a lone 0 means."""

    name: str
    unit: Unit
    default: Any
    help: str
    group: str
    environment: str
    first: int = 0
    last: int = 0
    zero_is: str = ""
    choices: type[enum.StrEnum] | None = None
    is_required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def allowed_text(self) -> str:
        """The range or the choices, for `--help` and the reference; empty where the unit says enough."""
        if self.choices is not None:
            return ", ".join(self.choices)
        if not self.last:
            return ""
        zero = f"; 0 means {self.zero_is}" if self.zero_is else ""
        return f"{readable(self.first, self.unit)} to {readable(self.last, self.unit)}{zero}"

    @property
    def default_text(self) -> str:
        """The default as it would be written in the environment; empty for none."""
        if self.default is None or self.default == ():
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return readable(self.default, self.unit) if isinstance(self.default, int) else str(self.default)


def setting(
    unit: Unit,
    default: Any,
    help: str,  # noqa: A002  # the word that argparse, click and typer use for it
    *,
    env: str = "",
    between: tuple[int, int] = (0, 0),
    zero_is: str = "",
    choices: type[enum.StrEnum] | None = None,
    group: str,
    required: bool = False,
) -> Any:
    """A dataclass field that carries its row of the table."""
    metadata = {
        "unit": unit,
        "help": help,
        "group": group,
        "environment": env,
        "first": between[0],
        "last": between[1],
        "zero_is": zero_is,
        "choices": choices,
        "is_required": required,
    }
    if required:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def readable(value: int, unit: Unit) -> str:
    """A number as people write it, and as the loader reads it back: whole KiB, MiB or GiB where the unit is bytes."""
    if unit is Unit.BYTES:
        for factor, suffix in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value and value % factor == 0:
                return f"{value // factor}{suffix}"
    return str(value)


def check_value(spec: SettingSpec, value: Any) -> None:
    """Raise `SettingsError` unless `value` is within what its row allows."""
    if spec.unit in {Unit.PORT, Unit.MILLISECONDS, Unit.BYTES, Unit.COUNT} and not spec.first <= value <= spec.last:
        raise SettingsError(spec.name, f"{value} is not between {spec.first} and {spec.last} ({spec.unit})")
    if spec.unit is Unit.CHOICE and spec.choices is not None and value not in list(spec.choices):
        raise SettingsError(spec.name, f"{value!r} is none of {', '.join(spec.choices)}")
    if spec.unit is Unit.ADDRESS and value:
        _check_address(spec.name, value)
    if spec.unit is Unit.ADDRESSES:
        for address in value:
            _check_address(spec.name, address)
    if spec.unit is Unit.MEMBERS:
        for member in value:
            _check_node_id(spec.name, member.node_id)
            _check_address(spec.name, member.raft_address)
    if spec.name == "node_id":
        _check_node_id(spec.name, value)


def _check_node_id(name: str, node_id: str) -> None:
    if not NODE_ID.fullmatch(node_id):
        raise SettingsError(name, f"{node_id!r} is not a name of 1 to 64 letters, digits, '.', '_' and '-'")


def _check_address(name: str, address: str) -> None:
    try:
        split_reachable_address(address)
    except ValueError as error:
        raise SettingsError(name, str(error)) from None
