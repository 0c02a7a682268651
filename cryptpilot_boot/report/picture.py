"""The report of a boot as a picture: an SVG file without references to others, for a screen or for paper."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections import defaultdict
from typing import TYPE_CHECKING, Callable, TypeVar

from cryptpilot_boot.report.report import periods
from cryptpilot_boot.report.spans import ENDED, FAILED, UNFINISHED
from cryptpilot_boot.report.summary import full_name, short_name, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cryptpilot_boot.report.report import Period, Report
    from cryptpilot_boot.report.runs import Mark
    from cryptpilot_boot.report.spans import Span

K = TypeVar("K")

# Measures are in pixels.
_WIDTH = 1280
_MARGIN = 24
_LEFT, _RIGHT = 150, 1150
"""Where the time axis begins and ends. Beyond it is space for the last labels."""
_ROW = 20
_LINE = 16
_BAR = 13
_LETTER = 6.3  # of _SMALL sans-serif text, on average and a bit
_FIXED_LETTER = 6.7  # of _SMALL monospaced text
_SMALL = 11
_GAP = 5
_MOST_TICKS = 18

_STYLE = f"""\
text {{ font: {_SMALL}px sans-serif; fill: #1c2126 }}
.title {{ font-size: 18px; font-weight: bold }}
.stage {{ font-weight: bold }}
.volume {{ text-anchor: end }}
.tick {{ text-anchor: middle; fill: #5a6470 }}
.summary {{ font-family: monospace }}
.grid {{ stroke: #dde1e6 }}
.rule {{ stroke: #9aa3ad }}
.band {{ fill: #eef1f5 }}
.back {{ fill: #ffffff; fill-opacity: 0.85 }}
.bar {{ stroke-width: 1 }}
.ended {{ fill: #3f78b5; stroke: #2b5685 }}
.failed {{ fill: #d0342c; stroke: #8f1d17 }}
.unfinished {{ fill: #f0b429; stroke: #8a6100; stroke-dasharray: 3 2 }}
.wait {{ fill: url(#waiting); stroke: #2b5685 }}
.machine {{ stroke: #1c2126; stroke-dasharray: 6 3 }}
.agent {{ stroke: #7a3fa0; stroke-dasharray: 2 2 }}
.bad {{ fill: #b3261e; font-weight: bold }}"""

_PATTERN = """\
<pattern id="waiting" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="6" height="6" fill="#eaf1f9"/><rect width="2" height="6" fill="#8fb3da"/></pattern>"""

_ADDED = {ENDED: "", FAILED: ", failed", UNFINISHED: ", not ended"}


def draw(whole: Report) -> list[str]:
    """Return the lines of an SVG file."""
    body: list[str] = []
    y = _MARGIN + 14.0
    body.append(_text(_MARGIN, y, "cryptpilot boot report", "title"))
    y += 24
    body += _legend(y)
    y += _ROW
    for period in periods(whole):
        lines, y = _panel(period, y)
        body += lines
        y += _ROW
    for line in summary(whole):
        room = int((_WIDTH - 2 * _MARGIN) / _FIXED_LETTER)
        indent = " " * (len(line) - len(line.lstrip()) + 10)
        for part in textwrap.wrap(line, room, subsequent_indent=indent, drop_whitespace=False) or [line]:
            pad = len(part) - len(part.lstrip())
            body.append(_text(_MARGIN + pad * _FIXED_LETTER, y, part.strip(), "summary"))
            y += _LINE
    height = math.ceil(y + _MARGIN / 2)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        "<title>cryptpilot boot report</title>",
        "<style>",
        *_STYLE.splitlines(),
        "</style>",
        f"<defs>{_PATTERN}</defs>",
        # on the dark page of a viewer the text could not be read
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *body,
        "</svg>",
    ]


def _legend(y: float) -> Iterator[str]:
    x: float = _MARGIN
    for kind, name in (
        ("bar ended", "work"),
        ("bar wait", "wait"),
        ("bar failed", "failed"),
        ("bar unfinished", "not ended"),
    ):
        yield _rect(x, y - 10, 26, _BAR, kind)
        yield _text(x + 32, y, name)
        x += 32 + _width(name) + 3 * _GAP
    for kind, name in (("agent", "moment of the agent"), ("machine", "moment of the machine")):
        yield _line(x + 13, y - 11, x + 13, y + 4, kind)
        yield _text(x + 20, y, name)
        x += 20 + _width(name) + 3 * _GAP
    yield _text(x, y, "time in seconds since power-on")


def _panel(period: Period, top: float) -> tuple[list[str], float]:
    """Draw the timeline of a period from `top` down; return its lines and where it ends."""
    axis = _Axis(period)
    top += _ROW
    labels = _labels([mark for mark in period.marks if axis.shows(mark.at)], axis)
    y = top + _GAP + _LINE * max((label.line + 1 for label in labels), default=0) + _GAP
    under: list[str] = []
    over: list[str] = []
    for (stage, run), of_stage in _grouped(period.steps, lambda step: (step.stage, step.run)):
        under.append(_rect(_MARGIN, y, _WIDTH - 2 * _MARGIN, _ROW, "band"))
        over.append(_text(_MARGIN + _GAP, y + 14, full_name(stage, run), "stage"))
        y += _ROW
        for volume, steps in _grouped(of_stage, lambda step: step.volume):
            over.append(_text(_LEFT - 2 * _GAP, y + 14, _shortened(volume, _LEFT - _MARGIN - 2 * _GAP), "volume"))
            for step in steps:
                over += _step(step, axis, y)
                y += _ROW
            under.append(_line(_MARGIN, y, _WIDTH - _MARGIN, y, "grid"))
    marks = [line for label in labels for line in _mark(label, top + _GAP, y)]
    return [*under, *axis.grid(top, y), *marks, *over], y + _ROW + _GAP


def _grouped(steps: Sequence[Span], of: Callable[[Span], K]) -> Iterable[tuple[K, list[Span]]]:
    """Group steps, in the order of the first of each group."""
    groups: defaultdict[K, list[Span]] = defaultdict(list)
    for step in steps:
        groups[of(step)].append(step)
    return groups.items()


class _Axis:
    """Where a moment is on the time axis.

    Marks of the machine are on it as long as the agent's work keeps at least a third of it.
    """

    def __init__(self, period: Period) -> None:
        span = period.end - period.begin or 1.0
        near = [mark.at for mark in period.marks if period.begin - span <= mark.at <= period.end + span]
        self._begin = min([period.begin, *near])
        self._end = max([period.end, *near, self._begin + 0.001])

    def shows(self, at: float) -> bool:
        return self._begin <= at <= self._end

    def x(self, at: float) -> float:
        share = (at - self._begin) / (self._end - self._begin)
        return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        """Draw a line every 1, 2 or 5 seconds, or a power of ten of these."""
        raw = (self._end - self._begin) / _MOST_TICKS
        power = math.floor(math.log10(raw))
        exponent, factor = next(
            (power + n, f) for n, f in ((0, 1), (0, 2), (0, 5), (1, 1)) if f * 10.0 ** (power + n) >= raw
        )
        step = factor * 10.0**exponent
        for number in range(math.ceil(self._begin / step), math.floor(self._end / step) + 1):
            x = self.x(number * step)
            label = f"{number * step:.{max(0, -exponent)}f} s"
            yield _line(x, top, x, bottom, "grid")
            yield _text(x, top - _GAP, label, "tick")
            yield _text(x, bottom + 14, label, "tick")
        yield _line(_LEFT, top, _RIGHT, top, "rule")
        yield _line(_LEFT, bottom, _RIGHT, bottom, "rule")


@dataclasses.dataclass(frozen=True)
class _Label:
    """The name of a moment, and where it stands."""

    mark: Mark
    name: str
    x: float
    line: int


def _labels(marks: Sequence[Mark], axis: _Axis) -> list[_Label]:
    """Place the names of moments.

    Each is below any earlier one it would touch, so that no moment's line crosses a name.
    """
    labels: list[_Label] = []
    for mark in marks:
        name = ": ".join(filter(None, (short_name(mark.stage, mark.run), mark.volume, mark.name)))
        x = axis.x(mark.at)
        touched = (label.line + 1 for label in labels if label.x + 2 * _GAP + _width(label.name) > x)
        labels.append(_Label(mark, name, x, max(touched, default=0)))
    return labels


def _mark(label: _Label, top: float, bottom: float) -> Iterator[str]:
    y = top + label.line * _LINE
    yield f"<g><title>{_escape(label.name)}, {label.mark.at:.3f} s</title>"
    yield _line(label.x, y, label.x, bottom, "agent" if label.mark.stage else "machine")
    yield _text(label.x + 3, y + 11, label.name)
    yield "</g>"


def _step(step: Span, axis: _Axis, y: float) -> Iterator[str]:
    begin, end = axis.x(step.at), axis.x(step.end)
    label = f"{step.step}, {step.seconds:.3f} s{_ADDED[step.result]}"
    yield f"<g><title>{_escape(_tooltip(step))}</title>"
    yield _rect(begin, y + 3, max(2.0, end - begin), _BAR, f"bar {step.result}")
    for wait in step.waits:
        left, right = axis.x(wait.at), axis.x(wait.at + wait.seconds)
        if right > left:
            yield _rect(left, y + 3, right - left, _BAR, "bar wait")
    width = _width(label)
    x = end + _GAP
    if x + width > _WIDTH - _MARGIN:
        x = max(_LEFT, begin - _GAP - width)
    yield _rect(x - 1, y + 3, width, _BAR, "back")
    yield _text(x, y + 14, label, "" if step.result == ENDED else "bad")
    yield "</g>"


def _tooltip(step: Span) -> str:
    waits = [f"waited {wait.seconds:.3f} s for: {wait.waiting_for}" for wait in step.waits]
    head = f"{step.volume}: {step.step}, from {step.at:.3f} s to {step.end:.3f} s{_ADDED[step.result]}"
    return "\n".join([head, *waits, *([step.error] if step.error else [])])


def _shortened(text: str, room: float) -> str:
    letters = int(room / _LETTER)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _width(text: str) -> float:
    return _LETTER * len(text)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{of} xml:space="preserve">{_escape(text)}</text>'


def _escape(text: str) -> str:
    """Make a text safe in XML. The report has removed the characters that XML cannot hold."""
    for char, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("\n", "#10")):
        text = text.replace(char, f"&{name};")
    return text
