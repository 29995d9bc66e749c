"""The documented path of ``FormPart`` from before it had its name at the root; it keeps working."""

from __future__ import annotations

from .protocols.http.forms import FormPart

__all__ = ["FormPart"]
