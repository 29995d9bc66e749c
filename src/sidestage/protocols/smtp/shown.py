"""How a report shows a mail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...journal.record import Shown
from ...reports.text import count, line, over, quoted

if TYPE_CHECKING:
    from .mail import Mail

_HEAD = 1 << 13  # bytes of the mail that are looked at
_RECIPIENTS = 3
_ADDRESS = 80  # characters
_SUBJECT = re.compile(rb"^Subject:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def shown(mail: Mail) -> Shown:
    """The envelope, the subject and the beginning of the text."""
    message = mail._message
    beginning = message.data[:_HEAD]
    head, blank, _ = beginning.partition(b"\r\n\r\n")
    details = []
    if found := _SUBJECT.search(head):
        details.append(f"Subject: {line(found[1].decode('utf-8', 'replace'))}")
    start = len(head) + len(blank)
    if blank and (size := len(message.data) - start):
        details.append(f"body: {quoted(message.data[start : start + _HEAD], size)}")
    return Shown(
        f"mail from {line(repr(message.mail_from), _ADDRESS)} to {_recipients(message.rcpt_tos)}, "
        f"{count(len(message.data), 'byte')}{over(mail.tls)}",
        tuple(details),
        handled=bool(message.call),
    )


def _recipients(addresses: list[str]) -> str:
    named = ", ".join(line(repr(address), _ADDRESS) for address in addresses[:_RECIPIENTS])
    more = len(addresses) - _RECIPIENTS
    return f"{named} and {more:,} more" if more > 0 else named
