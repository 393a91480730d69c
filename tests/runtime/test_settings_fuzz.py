"""Any text in any source: either settings that are sound, or a `SettingsError` that names where it stood."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import SettingsError
from raftkv.runtime.settings import SETTINGS, Settings
from raftkv.runtime.settings.loading import load_settings

REQUIRED = {"RAFT_NODE_ID": "node1", "RAFT_VOL_DIR": "node_1_data"}
WORDS = (
    " 0 -1 1 1e9 0x10 1_000 NaN inf true TRUE maybe null [] 64MiB 64-mib 1.5GiB 10XB : :: [::1]:1 [::1 a:b a:70000 "
    "host: :1 a=b =,=, a=b:1,a=b:1 , / .. ~ \x00 \ud800 \xfc local linearizable forward"
)
TELLING = st.sampled_from([*WORDS.split(" "), "9" * 400, "64 mib", "10 XB", " ", "\n"])
TEXTS = TELLING | st.text(max_size=40)
NAMES = st.sampled_from(sorted(SETTINGS))


def check(flags: dict[str, str | None], environ: dict[str, str], config_file: Path | None = None) -> None:
    try:
        settings = load_settings(flags, {**REQUIRED, **environ}, config_file)
    except SettingsError as error:
        refused = error
    else:
        assert Settings(**{name: getattr(settings, name) for name in SETTINGS}) == settings
        return
    assert refused.setting, refused
    assert refused.problem, refused


@given(st.dictionaries(NAMES, TEXTS, max_size=4), st.dictionaries(NAMES, TEXTS, max_size=4))
def test_texts_of_flags_and_environment(flags: dict[str, str], environ: dict[str, str]) -> None:
    check({**flags}, {SETTINGS[name].environment: text for name, text in environ.items()})


@given(st.binary(max_size=200) | st.builds(lambda n, t: f"{n} = {t}\n".encode("utf-8", "replace"), NAMES, TEXTS))
def test_bytes_of_a_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "raftkv.toml"
        path.write_bytes(data)
        check({}, {}, path)
