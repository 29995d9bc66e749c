"""``SIDESTAGE_CA``: one authority for several processes, in a directory of their user."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from kit.certificates import own_authority, usage
from kit.scripts import environment
from sidestage import TLS, HTTPServer
from sidestage.layers.tls import shared

PROCESSES = 6
PRINT_CA = "from sidestage import HTTPServer; print(open(HTTPServer(tls=True).ca_file).read())"
STRANGER = 12_345


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is not there yet, and is named in the environment."""
    directory = tmp_path / "our ca"
    monkeypatch.setenv("SIDESTAGE_CA", str(directory))
    return directory


def test_several_processes_at_once_share_one(place: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_CA],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    ended = [process.communicate(timeout=40) for process in running]
    assert {errors for _, errors in ended} == {""}
    (pem,) = {printed.strip() for printed, _ in ended}
    assert pem == (place / "ca.pem").read_text().strip()
    assert sorted(path.name for path in place.iterdir()) == ["ca-key.pem", "ca.pem"]


def test_whoever_is_late_takes_what_another_has_made(place: Path) -> None:
    def make_late() -> bytes:
        shared.load(str(place), lambda: b"first")
        return b"second"

    assert shared.load(str(place), make_late) == b"first"
    assert [path.name for path in place.iterdir()] == ["ca-key.pem"]


def test_nobody_else_has_access(place: Path) -> None:
    HTTPServer(tls=True).ca_file  # noqa: B018 - it is made when asked for
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.iterdir())}
    assert modes == {"our ca": 0o700, "ca-key.pem": 0o600, "ca.pem": 0o600}


def test_its_certificates_are_taken_by_who_trusts_the_file(place: Path) -> None:
    server = HTTPServer(tls=True)
    assert server.ca_file == str(place / "ca.pem")
    root = x509.load_pem_x509_certificate((place / "ca.pem").read_bytes())
    pem = server.tls.settings("127.0.0.1", ()).certificate  # type: ignore[union-attr]
    x509.load_pem_x509_certificates(pem)[0].verify_directly_issued_by(root)


def test_a_relative_name_is_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIDESTAGE_CA", "ca")
    assert HTTPServer(tls=True).ca_file == f"{tmp_path}/ca/ca.pem"


def test_a_server_keeps_to_the_authority_that_it_began_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = HTTPServer(tls=True)
    path = server.ca_file
    monkeypatch.delenv("SIDESTAGE_CA")
    assert server.ca_file == path
    assert HTTPServer(tls=True).ca_file != path


def test_the_certificate_alone_is_written_again(place: Path) -> None:
    server = HTTPServer(tls=True)
    Path(server.ca_file).unlink()
    assert Path(server.ca_file).read_bytes() == server.tls.trusted()  # type: ignore[union-attr]


def test_the_certificate_of_an_earlier_authority_is_replaced(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    server = HTTPServer(tls=True)
    assert server.ca_file == str(place / "ca.pem")
    assert Path(server.ca_file).read_bytes() == server.tls.trusted()  # type: ignore[union-attr]


@pytest.mark.parametrize("gone", [True, False])
def test_where_it_cannot_be_written_it_is_a_file_of_the_process(place: Path, gone: bool) -> None:
    server = HTTPServer(tls=True)
    Path(server.ca_file).unlink()
    if gone:  # stands for a directory that may only be read, which root may write to
        shutil.rmtree(place)
    else:
        (place / "ca.pem").mkdir()
    assert not server.ca_file.startswith(str(place))
    assert Path(server.ca_file).read_bytes() == server.tls.trusted()  # type: ignore[union-attr]


def test_a_directory_that_others_may_change_is_refused(place: Path) -> None:
    place.mkdir()
    place.chmod(0o770)
    with pytest.raises(PermissionError, match=r"others have access .* \(mode 770\).*chmod 700"):
        TLS().trusted()
    place.chmod(0o755)  # to read it gives nothing away
    assert TLS().trusted()


def test_a_key_that_others_may_read_is_refused(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "ca-key.pem").write_bytes(b"x")
    (place / "ca-key.pem").chmod(0o644)
    with pytest.raises(PermissionError, match="could sign certificates: chmod 600"):
        TLS().trusted()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_what_belongs_to_another_user_is_refused(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, STRANGER, STRANGER)
    with pytest.raises(PermissionError, match=f"belongs to the user {STRANGER}"):
        TLS().trusted()
    os.chown(place, 0, 0)
    (place / "ca-key.pem").write_bytes(b"x")
    (place / "ca-key.pem").chmod(0o600)
    os.chown(place / "ca-key.pem", STRANGER, STRANGER)
    with pytest.raises(PermissionError, match=f"belongs to the user {STRANGER}"):
        TLS().trusted()


def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    assert TLS().trusted()
    (place / "ca-key.pem").rename(tmp_path / "elsewhere")
    (place / "ca-key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"ca-key.pem' cannot be read, .* a file and no link"):
        shared.load(str(place), lambda: b"")


def test_what_is_no_directory_or_no_authority(place: Path) -> None:
    place.write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"SIDESTAGE_CA names .*, which is no directory"):
        TLS().trusted()
    place.unlink()
    place.mkdir(mode=0o700)
    (place / "ca-key.pem").write_bytes(b"nothing")
    (place / "ca-key.pem").chmod(0o600)
    with pytest.raises(ValueError, match="not the key and certificate of an authority"):
        TLS().trusted()


NO_CA = x509.BasicConstraints(ca=False, path_length=None)
USELESS = {
    "expired": (lambda: own_authority(days=-1), "it has expired"),
    "no authority": (lambda: own_authority(ca=NO_CA), "is that of no authority"),
    "no identifier": (lambda: own_authority(own=None), "has no subject key identifier"),
    "no signing": (lambda: own_authority(usage=usage(signs=False)), "for other purposes"),
    "two": (
        lambda: trustme.CA().cert_pem.bytes() + trustme.CA().private_key_pem.bytes(),
        "a certificate and the key of another one",
    ),
    "empty": (lambda: b"", "not the key and certificate of an authority"),
}


@pytest.mark.parametrize("name", USELESS)
def test_an_authority_that_clients_refuse(place: Path, name: str) -> None:
    make, message = USELESS[name]
    place.mkdir(mode=0o700)
    (place / "ca-key.pem").write_bytes(make())
    (place / "ca-key.pem").chmod(0o600)
    with pytest.raises(ValueError, match=rf"SIDESTAGE_CA: .*{message}.*: remove the files there"):
        HTTPServer(tls=True).start()
    (place / "ca-key.pem").unlink()
    with HTTPServer(tls=True):
        pass


def test_what_is_no_file_in_the_place_of_its_key(place: Path) -> None:
    place.mkdir(mode=0o700)
    for make in (os.mkdir, os.mkfifo):
        make(place / "ca-key.pem", 0o600)
        with pytest.raises(OSError, match=r"ca-key.pem' must be a file: remove it"):
            TLS().trusted()
        (place / "ca-key.pem").rename(place / make.__name__)


def test_a_directory_in_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDESTAGE_CA", str(tmp_path / "a" / "b"))
    with pytest.raises(OSError, match="which cannot be used: No such file or directory"):
        TLS().trusted()


def test_a_file_system_without_hard_links(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(shared.system, "link", refuse)
    with pytest.raises(OSError, match="on a file system with hard links"):
        TLS().trusted()
    assert list(place.iterdir()) == []
