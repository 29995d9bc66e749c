"""Line charts as SVG with logarithmic axes: the slope is the exponent of the growth."""

from __future__ import annotations

import math
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # safe for the colour-blind

Series = list[tuple[float, float]]


def line_chart(title: str, x_label: str, series: dict[str, Series]) -> str:
    """An SVG document with a line for each of ``series``."""
    points = [point for values in series.values() for point in values]
    x_axis = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = _Axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
        ),
    ]
    for value in x_axis.ticks():
        x = x_axis.at(value)
        parts.append(_line(x, TOP, x, HEIGHT - BOTTOM, "#ddd"))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, "middle", _short(value)))
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "#ddd"))
        parts.append(_text(LEFT - 6, y + 4, "end", _short(value)))
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in values)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in values
        ]
        parts.append(_text(LEFT + 10, TOP + 16 + 16 * number, "start", name, colour))
    return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """A logarithmic axis: maps values to coordinates."""

    def __init__(self, values: list[float], first: float, last: float) -> None:
        logs = [math.log10(max(value, 1e-3)) for value in values]
        self._low = math.floor(min(logs))
        self._high = max(math.ceil(max(logs)), self._low + 1)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        """The coordinate of ``value``."""
        part = (math.log10(max(value, 1e-3)) - self._low) / (self._high - self._low)
        return self._first + part * (self._last - self._first)

    def ticks(self) -> list[float]:
        """The powers of ten on this axis."""
        return [10.0**power for power in range(self._low, self._high + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, anchor: str, text: str, colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _short(value: float) -> str:
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{suffix}"
    return f"{value:g}"
