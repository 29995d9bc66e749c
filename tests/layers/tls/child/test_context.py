"""Contexts from settings: what cannot be used is said, and nothing is left of keys."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form

from kit.certificates import leaf, settings
from sidestage.layers.tls.child.context import make_context


def make(**given: Any) -> ssl.SSLContext:
    chosen = settings(**given)
    return make_context(chosen, chosen.certificate, chosen.key)


def locked() -> bytes:
    """The key of the certificate, encrypted."""
    key = form.load_pem_private_key(leaf().key, None)
    password = form.BestAvailableEncryption(b"secret")
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, password)


@pytest.mark.parametrize(
    "given, what",
    [
        ({"key": b"nonsense"}, "the certificate and its key of TLS cannot be used"),
        ({"certificate": b""}, "the certificate and its key of TLS cannot be used"),
        ({"key": leaf("other.example").key}, "cannot be used: .*(?i:mismatch)"),
        ({"ciphers": "NONE-SUCH"}, "the settings of TLS cannot be used"),
        ({"minimum_version": "TLSv9"}, "the settings of TLS cannot be used"),
        ({"client_auth": "required", "client_ca": b"x"}, "the CA of the clients' certificates"),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make(**given)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password() -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        make(key=locked())


def test_no_descriptor_is_left() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    make()
    with pytest.raises(ValueError, match="cannot be used"):
        make(key=b"nonsense")
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("lacking", ["memfd_create", "access"])
def test_elsewhere_a_file_that_only_its_owner_reads_is_removed_at_once(
    lacking: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modes = []
    original = tempfile.mkstemp

    def mkstemp() -> tuple[int, str]:
        fd, path = original(dir=tmp_path)
        modes.append(Path(path).stat().st_mode & 0o777)
        return fd, path

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    if lacking == "access":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        monkeypatch.delattr(os, lacking)
    assert isinstance(make(), ssl.SSLContext)
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []
