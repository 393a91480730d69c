"""`/debug/pprof/`: what a running node is doing, in formats that people can open.

The processor profile is taken by a thread that looks at all stacks many times a second: it needs no
preparation, costs the node about a hundredth of its speed, and sees the writer threads too. Waiting threads
are seen as well, in the function that waits. Turned down as the default: cProfile. It slows the event loop
twofold and so shows another program; it is there as `format=pstats`, for exact call counts.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import html
import marshal
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from raftkv.api.http.responses import Answer, to_json
from raftkv.api.request_errors import RouteNotFound
from raftkv.errors import InvalidInput, Overloaded

SAMPLE_INTERVAL_S = 0.005
SECONDS_DEFAULT, SECONDS_MAX = 5.0, 300.0
TOP_COUNT = 60

TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
HTML = [(b"content-type", b"text/html; charset=utf-8")]

_PAGE = """<!doctype html><title>raftkv profiles</title><h1>Profiles of this node</h1><ul>{rows}</ul>"""
_ROWS = {
    "profile?seconds=5": "processor, all threads, for <a href=https://www.speedscope.app>speedscope.app</a>",
    "profile?seconds=5&format=collapsed": "the same as collapsed stacks, for flamegraph.pl",
    "profile?seconds=5&format=pstats": "exact calls of the event loop, for <code>python -m pstats</code> or snakeviz",
    "heap": "objects by type, and memory",
    "heap?seconds=5": "what was allocated in that time and not freed, by line",
    "threads": "stacks of all threads",
    "tasks": "stacks of all asyncio tasks",
    "cmdline": "how the process was started",
}

Stack = tuple[str, ...]


class Profiles:
    """Answers the routes below `/debug/pprof/`. One profile over time runs at once."""

    def __init__(self) -> None:
        self._is_running = False

    async def answer(self, name: str, query: Mapping[str, str]) -> Answer:
        match name:
            case "":
                rows = "".join(
                    f'<li><a href="/debug/pprof/{html.escape(k)}">{html.escape(k)}</a>: {v}' for k, v in _ROWS.items()
                )
                return Answer(200, HTML, _PAGE.format(rows=rows).encode())
            case "profile":
                return await self._profile(_seconds(query, SECONDS_DEFAULT), query.get("format", "speedscope"))
            case "heap" | "allocs":
                return await self._heap(_seconds(query, 0.0))
            case "threads":
                return _text(thread_stacks())
            case "tasks":
                return _text(task_stacks())
            case "goroutine":  # the reference's name for the two
                return _text(thread_stacks() + task_stacks())
            case "cmdline":
                return _text("\0".join(sys.orig_argv))
            case _:
                raise RouteNotFound(f"no profile {name!r}; /debug/pprof/ lists them")

    async def _profile(self, seconds: float, kind: str) -> Answer:
        if kind not in {"speedscope", "collapsed", "pstats"}:
            raise InvalidInput(f"format has to be speedscope, collapsed or pstats; it is {kind!r}")
        if self._is_running:
            raise Overloaded("another profile is being taken; try again when it is done")
        self._is_running = True
        try:
            if kind == "pstats":
                return _attachment("raftkv.pstats", await profile_calls(seconds))
            samples = await asyncio.to_thread(sample_stacks, seconds)
        finally:
            self._is_running = False
        if kind == "collapsed":
            return _text(collapsed(samples))
        return _attachment("raftkv.speedscope.json", to_json(speedscope(samples)))

    async def _heap(self, seconds: float) -> Answer:
        if not seconds:
            return _text(heap_by_type())
        if tracemalloc.is_tracing() or self._is_running:
            raise Overloaded("another profile is being taken; try again when it is done")
        self._is_running = True
        tracemalloc.start()
        try:
            await asyncio.sleep(seconds)
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
            self._is_running = False
        lines = [str(line) for line in snapshot.statistics("lineno")[:TOP_COUNT]]
        return _text(f"allocated within {seconds} s and not freed, largest first\n" + "\n".join(lines) + "\n")


def sample_stacks(seconds: float) -> Counter[Stack]:
    """How often each stack (outermost call first, under its thread's name) was seen. Blocks for that long."""
    samples: Counter[Stack] = Counter()
    own = threading.get_ident()
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != own:
                samples[(names.get(ident, f"thread {ident}"), *_stack(frame))] += 1
        time.sleep(SAMPLE_INTERVAL_S)
    return samples


def _stack(frame: FrameType | None) -> list[str]:
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(f"{code.co_qualname} ({Path(code.co_filename).name}:{code.co_firstlineno})")
        frame = frame.f_back
    return found[::-1]


def collapsed(samples: Counter[Stack]) -> str:
    """Brendan Gregg's format: frames joined by `;`, a space, the count."""
    lines = [f"{';'.join(frame.replace(';', ',') for frame in stack)} {count}\n" for stack, count in samples.items()]
    return "".join(sorted(lines))


def speedscope(samples: Counter[Stack]) -> dict[str, object]:
    """One sampled profile a thread (https://www.speedscope.app/file-format-schema.json)."""
    frames: dict[str, int] = {}
    profiles: dict[str, tuple[list[list[int]], list[float]]] = {}
    for (thread, *stack), count in sorted(samples.items()):
        rows, weights = profiles.setdefault(thread, ([], []))
        rows.append([frames.setdefault(frame, len(frames)) for frame in stack])
        weights.append(count * SAMPLE_INTERVAL_S)
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": "raftkv",
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": thread,
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": rows,
                "weights": weights,
            }
            for thread, (rows, weights) in profiles.items()
        ],
    }


async def profile_calls(seconds: float) -> bytes:
    """cProfile of the event loop's thread, as `pstats.Stats(file)` reads it."""
    profile = cProfile.Profile()
    try:
        profile.enable()
    except ValueError as error:  # Python 3.12 and later allow one profiler in a process
        raise Overloaded(f"a profiler is active already: {error}") from None
    try:
        await asyncio.sleep(seconds)
    finally:
        profile.disable()
    profile.create_stats()
    return marshal.dumps(profile.stats)


def heap_by_type() -> str:
    """Every object that the garbage collector tracks; plain ints, floats, strings and bytes are not among them."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in gc.get_objects():
        kind = type(item)
        name = f"{kind.__module__}.{kind.__qualname__}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(item, 0)
    lines = [f"{sizes[name]:>14,} bytes {count:>10,}  {name}\n" for name, count in counts.most_common(TOP_COUNT)]
    return f"{_memory()}objects tracked by the garbage collector: {counts.total():,}\n{''.join(lines)}"


def _memory() -> str:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return ""
    return "".join(
        f"{line}\n" for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM", "RssAnon", "Threads"))
    )


def thread_stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}\n"
        for ident, frame in sys._current_frames().items()
    ]
    return "".join(parts)


def task_stacks() -> str:
    parts = []
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        frames = "".join("".join(traceback.format_stack(frame, 1)) for frame in task.get_stack())
        parts.append(f"task {task.get_name()} {task.get_coro()!r}:\n{frames}\n")
    return "".join(parts)


def _seconds(query: Mapping[str, str], default: float) -> float:
    text = query.get("seconds", "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not (0 < seconds <= SECONDS_MAX or (not text and seconds == default)):
        raise InvalidInput(f"seconds has to be over 0 and at most {SECONDS_MAX:.0f}; it is {text!r}")
    return seconds


def _text(text: str) -> Answer:
    return Answer(200, TEXT, text.encode(errors="replace"))


def _attachment(name: str, body: bytes) -> Answer:
    kind = b"application/json" if name.endswith(".json") else b"application/octet-stream"
    headers = [(b"content-type", kind), (b"content-disposition", b'attachment; filename="%b"' % name.encode("ascii"))]
    return Answer(200, headers, body)
