"""Tables of docs/ with what popular clients say, which ``make faults`` writes.

A column is of a client, a row of what goes wrong. Do not edit the tables by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., str])

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"
BRIEF = 1.0  # seconds until a client gives up on what is stalled
WAIT = 20.0  # seconds; nothing else comes near it


class Client(NamedTuple, Generic[F]):
    """A client: fetches something and says what it got, or raises ``errors``."""

    version: Callable[[], str]
    fetch: F
    errors: tuple[type[Exception], ...]


class ProgramError(Exception):
    """What a program has said, which is not Python's."""


def said(fetch: Callable[[], str]) -> tuple[str, Exception | None]:
    """What a client says, as in a table, and its exception."""
    try:
        return f"`{fetch()!r}`", None
    except ProgramError as error:
        return str(error), error
    except Exception as error:  # noqa: BLE001 - which it is, is the question
        return f"`{type(error).__name__}`", error


class Table(NamedTuple):
    """The table between the markers of a page."""

    page: Path
    title: str  # of its first column

    def told(self) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
        """The versions of the clients on the page, and its cells by row and client."""
        text = self.page.read_text().partition(BEGIN)[2].partition(END)[0]
        versions = dict(re.findall(r"(\S+) (\d[\d.]*\d)", text.partition("|")[0]))
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("|")
        ]
        if not rows:  # it is written for the first time
            return versions, {}
        (_, *names), _, *body = rows
        cells = {
            (row[0].strip("`"), name): cell
            for row in body
            for name, cell in zip(names, row[1:], strict=True)
        }
        return versions, cells

    def write(
        self,
        names: Iterable[str],
        found: dict[str, Client[F]],
        rows: Iterable[str],
        cell: Callable[[Client[F], str], str],
    ) -> None:
        """Write the table anew; a client that is not installed here keeps its column."""
        versions, cells = self.told()
        shown = [name for name in names if name in found or name in versions]
        versions |= {name: one.version() for name, one in found.items()}
        with_them = ", ".join(f"{name} {versions.get(name, '')}".strip() for name in shown)
        lines = [f"With {with_them}:", "", f"| {self.title} | {' | '.join(shown)} |"]
        lines.append("| --- " * (len(shown) + 1) + "|")
        for row in rows:
            told = [
                cell(found[name], row) if name in found else cells.get((row, name), "")
                for name in shown
            ]
            lines.append(f"| `{row}` | {' | '.join(told)} |")
        head, _, rest = self.page.read_text().partition(BEGIN)
        table = "\n".join(lines)
        self.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
