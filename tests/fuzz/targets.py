"""What is fuzzed."""

from __future__ import annotations

from collections.abc import Callable

from fuzz import (
    hostile_child,
    http_child,
    http_moments,
    http_sockets,
    pipe,
    smtp,
    tcp_udp_sockets,
)
from fuzz.cases import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "http-heads": lambda: http_child.HTTPCuts("http-heads", 0.25, http_child.heads),
    "http-bodies": lambda: http_child.HTTPCuts("http-bodies", 0.15, http_child.bodies),
    "http-pipelines": lambda: http_child.HTTPCuts("http-pipelines", 0.2, http_child.pipelines),
    "http-moments": lambda: http_moments.HTTPMoments(0.1),
    "http-sockets": lambda: http_sockets.HTTPSockets(0.03),
    "tcp-sockets": lambda: tcp_udp_sockets.TCPSockets(0.03),
    "udp-sockets": lambda: tcp_udp_sockets.UDPSockets(0.03),
    "smtp": lambda: smtp.SMTPCuts(0.1),
    "smtp-sockets": lambda: smtp.SMTPSockets(0.02),
    "frames": lambda: pipe.Frames(0.15),
    "commands": lambda: pipe.Commands(0.01),
    "events": lambda: hostile_child.HostileChild(0.002),
}
