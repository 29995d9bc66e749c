"""Measures all figures of the documentation: ``make bench``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import charts
import costs
import growth
import hot
import lifecycle
import limits
import pages
import profiles
import serving

CHARTS: list[tuple[str, str, str, Callable[[], dict[str, growth.Series]]]] = [
    ("connections", "Idle connections", "connections", growth.with_connections),
    ("bodies", "Milliseconds for a body through a handler", "bytes", growth.with_bodies),
    ("servers", "Servers at once, from an empty pool", "servers", growth.with_servers),
]


def main() -> None:
    """Measure, print and, if asked to, write the figures."""
    options = _options()
    if options.only:
        list(serving.measure(options.serving_rounds, options.only))
        return
    lines = [*lifecycle.figures(options.rounds), *limits.lines()]
    print("\n".join(lines), flush=True)
    lines += serving.table(serving.measure(options.serving_rounds))
    lines += costs.lines()
    lines += hot.lines()
    lines += profiles.lines()
    drawn = _draw()
    if options.write is not None:
        pages.replace(options.write, "figures", "\n".join(lines))
        for name, chart in drawn.items():
            (options.write.parent / f"performance-{name}.svg").write_text(chart)


def _draw() -> dict[str, str]:
    drawn: dict[str, str] = {}
    for name, title, label, measure in CHARTS:
        series = measure()
        print(title, series, flush=True)
        drawn[name] = charts.line_chart(title, label, series)
    return drawn


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="of warm starts (default: 200)")
    parser.add_argument("--serving-rounds", type=int, help="of what is served (default: 5 to 7)")
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="measure the rows of serving alone that contain this",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures into FILE")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("--only measures some rows, and --write needs all of them")
    return options


if __name__ == "__main__":
    main()
