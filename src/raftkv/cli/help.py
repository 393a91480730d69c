"""How `--help` looks, where Typer's own way misleads a reader.

Typer shows a type beside every option, `<bool>` for a flag as well, as if a value had to follow it; puts arguments
of the usage line into braces, which usually mean a choice; and keeps the line breaks of a docstring, which fall
elsewhere than the terminal's.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


def flowing(text: str | None) -> str | None:
    """Paragraphs without line breaks of their own."""
    return None if text is None else "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


class _Plain:
    """What both classes do; before Typer's class in the bases."""

    help: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = flowing(self.help)

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)  # type: ignore[misc]  # of the Typer class that follows in the bases
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]  # as above
        return [piece.replace("{", "").replace("}", "") for piece in pieces]


class PlainCommand(_Plain, TyperCommand):
    """For `app.command(cls=…)`."""


class PlainGroup(_Plain, TyperGroup):
    """For `typer.Typer(cls=…)`."""
