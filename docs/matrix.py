"""Writes the tables of compatibility.md from the results of the hostile tests.

``make matrix`` runs the tests on each Python found, with the other servers on one of them, and then
``python docs/matrix.py NOTES.json...``. Do not edit the tables by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).with_name("compatibility.md")
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
OURS = "sidestage"
PEERS = ("ThreadingHTTPServer", "pytest-httpserver")
_LONGEST = 90  # characters of a verdict


def main(files: list[str]) -> None:
    """Replace the text between the markers of the page."""
    # theme -> row -> server -> verdict -> versions of Python
    tables: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    )
    versions = []
    for file in files:
        notes = json.loads(Path(file).read_text())
        versions.append(notes["python"])
        for theme, row, server, verdict in notes["rows"]:
            tables[theme][row][server][verdict].append(notes["python"])
    count = sum(map(len, tables.values()))
    pythons = ", ".join(sorted(versions))
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, Linux, CPython {pythons}; {count} rows.", ""]
    for theme in sorted(tables):
        lines += [f"### {theme}", "", _line("", "Sidestage", *PEERS), _line(*["---"] * 4)]
        for row in sorted(tables[theme]):
            verdicts = tables[theme][row]
            lines.append(_line(row, *(_cell(verdicts.get(name)) for name in (OURS, *PEERS))))
        lines.append("")
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    body = "\n".join(lines)
    PAGE.write_text(f"{head}{BEGIN}\n{body}{END}{rest.partition(END)[2]}")


def _cell(verdicts: dict[str, list[str]] | None) -> str:
    if not verdicts:
        return "-"
    if len(verdicts) == 1:
        return _shown(*verdicts)
    return "; ".join(f"{_shown(what)} ({', '.join(where)})" for what, where in verdicts.items())


def _shown(verdict: str) -> str:
    """Remove what differs in each run: addresses, ports, pids, times."""
    text = re.sub(r"0x[0-9a-f]+", "0x…", verdict)
    text = re.sub(r"\b\d{4,}\b", "…", text)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return text if verdict == "works" else f"*{text.replace('*', '')}*"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main(sys.argv[1:])
