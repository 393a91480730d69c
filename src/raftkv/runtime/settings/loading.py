"""Where values of settings come from: flags, then the environment, then a TOML file, then the default.

Whatever is wrong is refused by the name that its source uses for it (`--server-port`, `SERVER_PORT
(environment)`, `server_port (/etc/raftkv.toml)`), and a name that no setting has is refused too: a misspelt
limit that silently stays at its default is found when it is too late.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raftkv.errors import SettingsError
from raftkv.runtime.settings.fields import SETTINGS, Settings
from raftkv.runtime.settings.schema import InitialMember, SettingSpec, Unit, check_value

CONFIG_ENVIRONMENT = "RAFTKV_CONFIG"
OTHER_ENVIRONMENT = frozenset({CONFIG_ENVIRONMENT, "RAFTKV_SERVER"})
"""Names of ours in the environment that are not settings of a node; RAFTKV_SERVER is the clients' default server."""

_SIZE = re.compile(r"(\d+)\s*(|B|KiB|MiB|GiB)", re.IGNORECASE)
_SIZE_FACTORS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class _Given(NamedTuple):
    """A value as it was given, and its name for the user."""

    label: str
    value: Any


def load_settings(
    flags: Mapping[str, str | None], environ: Mapping[str, str], config_file: Path | str | None = None
) -> Settings:
    """Merge the sources and check the whole.

    `flags` maps setting names to texts, None where the flag was not given. Without `config_file` the file named by
    RAFTKV_CONFIG is read, if any. An environment variable that is set but empty counts as not given.
    Raises SettingsError.
    """
    given: dict[str, _Given] = {}
    path = config_file or environ.get(CONFIG_ENVIRONMENT)
    if path:
        given |= _from_toml(Path(path))
    given |= _from_environment(environ)
    given |= {name: _Given(SETTINGS[name].flag, text) for name, text in flags.items() if text is not None}
    values = {name: _parsed(SETTINGS[name], source) for name, source in given.items()}
    for spec in SETTINGS.values():
        if spec.is_required and spec.name not in values:
            raise SettingsError(spec.name, f"required; give it as {spec.flag} or {spec.environment} (environment)")
    try:
        return Settings(**values)
    except SettingsError as error:
        label = given[error.setting].label if error.setting in given else f"{error.setting} (default)"
        raise SettingsError(label, error.problem) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    by_environment = {spec.environment: spec.name for spec in SETTINGS.values()}
    known = by_environment.keys() | OTHER_ENVIRONMENT
    for name in environ:
        if name.startswith("RAFTKV_") and name not in known:
            raise SettingsError(f"{name} (environment)", f"is not a setting{_suggestion(name, known)}")
    return {
        name: _Given(f"{variable} (environment)", environ[variable])
        for variable, name in by_environment.items()
        if environ.get(variable)
    }


def _from_toml(path: Path) -> dict[str, _Given]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}", f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}", f"is not valid TOML: {error}") from None
    for name in table:
        if name not in SETTINGS:
            raise SettingsError(f"{name} ({path})", f"is not a setting{_suggestion(name, SETTINGS)}")
    return {name: _Given(f"{name} ({path})", value) for name, value in table.items()}


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parsed(spec: SettingSpec, source: _Given) -> Any:
    try:
        value = _parse(spec, source.value)
        check_value(spec, value)
    except ValueError as error:
        raise SettingsError(source.label, str(error)) from None
    except SettingsError as error:
        raise SettingsError(source.label, error.problem) from None
    return value


def _parse(spec: SettingSpec, raw: Any) -> Any:
    """The typed value of a text, or of a TOML value that already has a type. Raises ValueError."""
    if spec.choices is not None:
        text = _text(raw)
        if text not in list(spec.choices):
            raise ValueError(f"{text!r} is none of {', '.join(spec.choices)}")
        return spec.choices(text)
    return _PARSERS[spec.unit](raw)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is not a text")
    return raw.strip()


def _path(raw: Any) -> Path:
    text = _text(raw)
    if not text:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("holds a zero byte, which no path can")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _integer(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"\s*-?[0-9]+\s*", raw):
        return int(raw)
    raise ValueError(f"{raw!r} is not a whole number")


def _size(raw: Any) -> int:
    if isinstance(raw, str):
        matched = _SIZE.fullmatch(raw.strip())
        if not matched:
            raise ValueError(f"{raw!r} is not a size such as 1048576, 64KiB, 64MiB or 1GiB")
        return int(matched[1]) * _SIZE_FACTORS[matched[2].lower()]
    return _integer(raw)


def _flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in _FLAG_WORDS:
        return _FLAG_WORDS[raw.strip().lower()]
    raise ValueError(f"{raw!r} is neither true nor false")


def _addresses(raw: Any) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        raise ValueError(f"{raw!r} is not a list of host:port")
    return tuple(_text(part) for part in parts if _text(part))


def _members(raw: Any) -> tuple[InitialMember, ...]:
    members = []
    for part in _addresses(raw):
        node_id, equals, address = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not name=host:port")
        members.append(InitialMember(node_id.strip(), address.strip()))
    return tuple(members)


_PARSERS: dict[Unit, Callable[[Any], Any]] = {
    Unit.TEXT: _text,
    Unit.PATH: _path,
    Unit.ADDRESS: _text,
    Unit.ADDRESSES: _addresses,
    Unit.MEMBERS: _members,
    Unit.PORT: _integer,
    Unit.MILLISECONDS: _integer,
    Unit.COUNT: _integer,
    Unit.BYTES: _size,
    Unit.FLAG: _flag,
}
