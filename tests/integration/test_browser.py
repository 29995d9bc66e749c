"""Chromium opens pages over TLS, with the CA in its profile, and refuses what it must."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from kit.scripts import eventually
from sidestage import TLS, HTTPRequest, HTTPServer

_LIMIT = 45  # seconds for a page; Chromium takes one or two, and more on a machine that is busy
_MISSING = [name for name in ("chromium", "certutil") if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(
    bool(_MISSING),
    reason=f"not installed: {', '.join(_MISSING)} (in Debian's chromium, libnss3-tools)",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory, in which Chromium looks for the CAs of its user."""
    database = tmp_path / ".pki" / "nssdb"
    database.mkdir(parents=True)
    _certutil(tmp_path, "-N", "--empty-password")
    return tmp_path


def _certutil(home: Path, *arguments: str) -> None:
    database = f"sql:{home}/.pki/nssdb"
    subprocess.run(["certutil", "-d", database, *arguments], check=True, timeout=_LIMIT)


def _open(home: Path, server: HTTPServer) -> tuple[str, str]:
    """The page of a server as Chromium shows it, and what it writes to its stderr."""
    _certutil(home, "-A", "-n", "Sidestage tests", "-t", "C,,", "-i", server.ca_file)
    command = [
        "chromium",
        "--headless",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--no-sandbox",  # which root cannot have
        f"--user-data-dir={home}/profile",
        "--dump-dom",
        server.url,
    ]
    browser = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(home)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with browser:
        try:
            page, told = browser.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(browser.pid, signal.SIGKILL)  # it is not reaped yet, so the group is its own
            raise
    assert eventually(lambda: not _processes(f"{home}/profile")), "Chromium has left processes"
    return page, told


def _processes(profile: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if profile.encode() in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:  # it has ended
            continue
    return found


def _page(request: HTTPRequest) -> tuple[str, int, dict[str, str]]:
    return "<h1>tea is ready</h1>", 200, {"Content-Type": "text/html"}


def test_it_opens_a_page(home: Path) -> None:
    with HTTPServer(tls=True, handler=_page) as server:
        page, _ = _open(home, server)
        first = server.received[0]
    assert "<h1>tea is ready</h1>" in page
    assert first.tls is not None
    assert first.tls.version == "TLSv1.3"


def test_it_refuses_a_certificate_that_has_expired(home: Path) -> None:
    with HTTPServer(tls=TLS.expired(), handler=_page) as server:
        page, told = _open(home, server)
        assert not server.received
        assert any("TLS handshake failed" in one.text for one in server.diagnostics)
    assert "tea is ready" not in page
    assert "net_error -201" in told or "ERR_CERT_DATE_INVALID" in told  # the same, by its number
