"""Faults as values: what goes wrong on purpose, for a handler to return or a reply to be.

``from sidestage import faults``; then, for example, ``faults.reset(reply, after=50_000)``.
"""

from __future__ import annotations

from .protocols.http.faults import (
    Fault,
    chunk_error,
    close,
    close_in_record,
    close_without_notify,
    garbage,
    reset,
    reset_in_record,
    slow,
    stall,
    wrong_length,
)

__all__ = [
    "Fault",
    "chunk_error",
    "close",
    "close_in_record",
    "close_without_notify",
    "garbage",
    "reset",
    "reset_in_record",
    "slow",
    "stall",
    "wrong_length",
]
