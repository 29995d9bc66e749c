"""What is fuzzed, and how many of all inputs each target gets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fuzz.cases import Target
from fuzz.hostile_child import HostileChild
from fuzz.http_child import HTTPCuts, bodies, heads, pipelines
from fuzz.http_moments import HTTPMoments
from fuzz.http_sockets import HTTPSockets
from fuzz.pipe import Commands, Frames
from fuzz.smtp import SMTPCuts, SMTPSockets
from fuzz.tcp_udp_sockets import TCPSockets, UDPSockets
from fuzz.tls import TLSHellos, TLSRecords
from fuzz.tls_sockets import TLSSockets


class Entry(NamedTuple):
    """A target, and its share of all inputs."""

    make: Callable[[], Target]
    share: float


TARGETS: dict[str, Entry] = {
    "http-sockets": Entry(HTTPSockets, 0.015),
    "smtp-sockets": Entry(SMTPSockets, 0.007),
    "tcp-sockets": Entry(TCPSockets, 0.008),
    "udp-sockets": Entry(UDPSockets, 0.01),
    "tls-sockets": Entry(TLSSockets, 0.006),
    "events": Entry(HostileChild, 0.002),
    "commands": Entry(Commands, 0.008),
    "http-heads": Entry(partial(HTTPCuts, "http-heads", heads), 0.28),
    "http-bodies": Entry(partial(HTTPCuts, "http-bodies", bodies), 0.2),
    "http-pipelines": Entry(partial(HTTPCuts, "http-pipelines", pipelines), 0.15),
    "http-moments": Entry(HTTPMoments, 0.08),
    "smtp": Entry(SMTPCuts, 0.04),
    "tls-hellos": Entry(TLSHellos, 0.05),
    "tls-records": Entry(TLSRecords, 0.01),
    "frames": Entry(Frames, 0.134),
}


def inputs_of(name: str, total: int) -> int:
    """How many of all inputs the target gets."""
    return max(1, round(total * TARGETS[name].share))
