"""A run as one HTML page: a lane a node, coloured by role, faults above, the last messages between the lanes.

One file without anything from elsewhere, so that it can be sent to somebody. Times are seconds, left to right.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from raftkv.sim.run import Outcome
from raftkv.sim.trace import Event

WIDTH, LEFT, LANE, TOP = 1400, 60, 46, 90
CLOSE_UP_S = 1.5
"""Of so long before the end, messages are drawn."""
_COLOURS = {
    "leader": "#2f855a",
    "candidate": "#d69e2e",
    "pre-candidate": "#f6e05e",
    "follower": "#a0aec0",
    "running": "#e2e8f0",
}
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 24px; color: #1a202c; }
h1 { font-size: 20px; } table { border-collapse: collapse; } td { padding: 2px 10px 2px 0; vertical-align: top; }
td:first-child { text-align: right; font-variant-numeric: tabular-nums; color: #4a5568; }
.violation { color: #c53030; font-weight: 600; } svg { max-width: 100%; height: auto; } text { font: 12px system-ui; }
"""

Place = Callable[[float], float]
"""Seconds to a horizontal position."""


class Span(NamedTuple):
    """`node` was in `role` from `start_s` to `stop_s`."""

    node: str
    role: str
    start_s: float
    stop_s: float
    text: str


def spans_of(events: Sequence[Event], stop_s: float) -> list[Span]:
    """What each node was when; nothing while its process did not run."""
    current: dict[str, tuple[str, float, str]] = {}
    spans: list[Span] = []

    def close(node: str, at_s: float) -> None:
        if node in current:
            role, start_s, text = current.pop(node)
            spans.append(Span(node, role, start_s, at_s, text))

    for event in events:
        role = event.text.split(" ", 1)[0]
        if event.text == "starts":
            current[event.node] = ("running", event.at_s, "starts")
        elif role in _COLOURS and " of term " in event.text:
            close(event.node, event.at_s)
            current[event.node] = (role, event.at_s, event.text)
        elif event.node and _is_end(event.text):
            close(event.node, event.at_s)
    for node in list(current):
        close(node, stop_s)
    return spans


def _is_end(text: str) -> bool:
    return text.startswith(("killed", "power cut", "wiped", "restarted", "stopped:", "failed:", "replaced"))


def draw(outcome: Outcome) -> str:
    """The page."""
    title = f"seed {outcome.plan.seed}: {outcome.violation.text if outcome.violation else 'nothing wrong'}"
    whole = _picture(outcome, 0.0, outcome.simulated_s, with_frames=False)
    parts = [
        "<!doctype html><meta charset=utf-8>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(str(_facts(outcome)))}</p>",
        f"<h2>The whole run, {outcome.simulated_s:.1f} s</h2>",
        whole,
    ]
    if outcome.frames:
        end_s = outcome.violation.at_s if outcome.violation else outcome.simulated_s
        start_s = max(0.0, end_s - CLOSE_UP_S)
        parts += [
            f"<h2>Messages from {start_s:.3f} s to {end_s:.3f} s</h2>",
            _picture(outcome, start_s, end_s + 0.01, with_frames=True),
        ]
    return "\n".join([*parts, "<h2>Events</h2>", _table(outcome)])


def _facts(outcome: Outcome) -> str:
    return (
        f"{outcome.plan.node_count} nodes, {outcome.fault_count} faults, {outcome.leader_count} leaders, "
        f"{outcome.committed_count} entries committed, {outcome.acknowledged_count} writes acknowledged, "
        f"{outcome.frame_count} messages; digest {outcome.digest}"
    )


def _picture(outcome: Outcome, start_s: float, stop_s: float, *, with_frames: bool) -> str:
    names = sorted({event.node for event in outcome.events if event.node})
    lanes = {name: TOP + LANE * number for number, name in enumerate(names)}
    height = TOP + LANE * len(names) + 30
    scale = (WIDTH - LEFT - 20) / max(stop_s - start_s, 1e-9)

    def x(at_s: float) -> float:
        return LEFT + (min(max(at_s, start_s), stop_s) - start_s) * scale

    shapes = [
        *_lanes(outcome, lanes, x, start_s, stop_s),
        *(_faults(outcome, x, height, start_s, stop_s)),
        *(_frames(outcome, lanes, x, start_s, stop_s) if with_frames else ()),
    ]
    if outcome.violation is not None:
        at = x(outcome.violation.at_s)
        shapes.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}" stroke="#c53030" stroke-width="2"/>')
    ticks = [start_s + (stop_s - start_s) * part / 10 for part in range(11)]
    digits = 0 if stop_s - start_s > 20 else 2
    shapes += [f'<text x="{x(at_s) - 12:.1f}" y="{height - 6}">{at_s:.{digits}f}</text>' for at_s in ticks]
    return f'<svg viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>'


def _lanes(outcome: Outcome, lanes: dict[str, int], x: Place, start_s: float, stop_s: float) -> Iterator[str]:
    for name, y in lanes.items():
        yield f'<text x="8" y="{y + 16}">{html.escape(name)}</text>'
        yield f'<path d="M{LEFT} {y + 11}H{WIDTH - 20}" stroke="#cbd5e0" stroke-dasharray="2 4"/>'
    for span in spans_of(outcome.events, outcome.simulated_s):
        if span.stop_s < start_s or span.start_s > stop_s:
            continue
        left, right = x(span.start_s), x(span.stop_s)
        label = html.escape(f"{span.node}: {span.text}, {span.start_s:.3f} to {span.stop_s:.3f} s")
        yield (
            f'<rect x="{left:.1f}" y="{lanes[span.node]}" width="{max(right - left, 1):.1f}" height="22" '
            f'fill="{_COLOURS[span.role]}"><title>{label}</title></rect>'
        )


def _faults(outcome: Outcome, x: Place, height: int, start_s: float, stop_s: float) -> Iterator[str]:
    row = 0
    for event in outcome.events:
        if not event.text.startswith("fault: ") or not start_s <= event.at_s <= stop_s:
            continue
        at = x(event.at_s)
        text = html.escape(event.text.removeprefix("fault: "))
        row = (row + 1) % 5
        top, bottom = row * 14 + 4, height - 20
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}" stroke="#dd6b20" opacity=".35"/>'
        yield f'<text x="{at + 2:.1f}" y="{top + 10}" fill="#c05621"><title>{text}</title>{text[:24]}</text>'


def _frames(outcome: Outcome, lanes: dict[str, int], x: Place, start_s: float, stop_s: float) -> Iterator[str]:
    for frame in outcome.frames:
        if not start_s <= frame.sent_s <= stop_s or frame.sender not in lanes or frame.recipient not in lanes:
            continue
        is_lost = math.isinf(frame.arrives_s)
        left, right = x(frame.sent_s), x(frame.sent_s if is_lost else frame.arrives_s)
        top, bottom = lanes[frame.sender] + 11, lanes[frame.recipient] + 11
        if is_lost:
            bottom = (top + bottom) // 2
        colour = "#c53030" if is_lost else "#3182ce"
        what = html.escape(f"{frame.what} {frame.sender} to {frame.recipient}{', lost' if is_lost else ''}")
        yield (
            f'<line x1="{left:.1f}" y1="{top}" x2="{right:.1f}" y2="{bottom}" stroke="{colour}" opacity=".6">'
            f"<title>{what}</title></line>"
        )


def _table(outcome: Outcome) -> str:
    rows = []
    for event in outcome.events:
        style = ' class="violation"' if event.text.startswith("VIOLATION") else ""
        rows.append(f"<tr{style}><td>{event.at_s:.6f}<td>{html.escape(event.node)}<td>{html.escape(event.text)}</tr>")
    return f"<table>{''.join(rows)}</table>"
