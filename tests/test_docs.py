"""The docs are true: generated pages are current, nothing is missing from the reference, commands and links work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv.api.http import routes
from raftkv.errors import error_code
from raftkv.runtime import SETTINGS
from scripts.make_reference import PAGES, REFERENCE, commands, error_classes, exported_name, metric_families
from tests.docs_console import run_page

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def reference(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert PAGES[name]() == reference(name), f"docs/reference/{name} is not current: run 'make reference'"


def test_every_setting_is_in_the_reference() -> None:
    page = reference("settings.md")
    for spec in SETTINGS.values():
        for name in (spec.name, spec.flag, spec.environment):
            assert f"`{name}`" in page


def test_every_error_is_in_the_reference() -> None:
    page = reference("errors.md")
    for kind in error_classes():
        assert f"| `{kind.__name__}` | `{error_code(kind)}` |" in page


def test_every_command_is_in_the_reference() -> None:
    page = reference("cli.md")
    names = [name for name, _ in commands()]
    assert len(names) >= 11
    for name in names:
        assert f"\n## {name}\n" in page


def test_every_metric_is_in_the_reference() -> None:
    page = reference("metrics.md")
    names = [exported_name(family) for family in metric_families()]
    assert len(names) == len(set(names)) > 30
    for name in names:
        assert f"`{name}`" in page


def test_every_route_is_in_the_reference() -> None:
    page = reference("http.md")
    for route in routes.ALL:
        assert re.search(rf"`(GET|POST|DELETE) {re.escape(route)}`", page), route


def links() -> Iterator[tuple[Path, str]]:
    for document in DOCUMENTS:
        for target in _LINK.findall(document.read_text(encoding="utf-8")):
            if "://" not in target:
                yield document, target


def anchor(heading: str) -> str:
    """The anchor that a heading gets on the usual code hosts."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_link_leads_somewhere() -> None:
    broken = []
    for document, target in links():
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists():
            broken.append(f"{document.relative_to(ROOT)}: {target}")
        elif fragment:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if fragment not in map(anchor, headings):
                broken.append(f"{document.relative_to(ROOT)}: {target} has no such heading")
    assert broken == []


def test_every_page_that_the_code_names_exists() -> None:
    sources = [path for folder in ("src", "tests", "scripts", "bench") for path in (ROOT / folder).rglob("*.py")]
    missing = {
        f"{path.relative_to(ROOT)} names {page}"
        for path in sources
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / page).exists()
    }
    assert missing == set()


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    while True:
        further = {
            (document.parent / target.partition("#")[0]).resolve()
            for document, target in links()
            if document in reached
        }
        pages = {page for path in further for page in (path.rglob("*.md") if path.is_dir() else [path])}
        if pages <= reached:
            break
        reached |= pages
    assert sorted(set(DOCUMENTS) - reached - {ROOT / "CHANGELOG.md"}) == []


def test_every_make_target_of_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        code = [*re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"`[^`\n]+`", text)]
        named |= {(document.name, target) for part in code for target in re.findall(r"\bmake ([a-z-]+)", part)}
    assert ("README.md", "demo") in named
    assert [name for name in named if name[1] not in targets] == []


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-cluster.md"])
def test_the_commands_of_a_page_do_what_it_says(page: str, tmp_path: Path) -> None:
    differences = run_page(ROOT / page, tmp_path)
    assert differences == [], "\n\n".join(differences)
