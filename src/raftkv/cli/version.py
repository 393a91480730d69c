"""`raftkv version`."""

from __future__ import annotations

import platform

from raftkv import __version__
from raftkv.cli.output import JsonOption, print_json, print_line


def version(as_json: JsonOption = False) -> None:
    """Print the versions of raftkv and Python."""
    if as_json:
        print_json({"raftkv": __version__, "python": platform.python_version()})
    else:
        print_line(f"raftkv {__version__} (Python {platform.python_version()})")
