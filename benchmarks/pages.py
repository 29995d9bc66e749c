"""The pages of the documentation that figures go into, between two comments."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, name: str, figures: str) -> None:
    """Put ``figures`` between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} lacks the lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n{figures}\n{end}{after}")
