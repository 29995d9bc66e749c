"""The settings and messages of TLS, which both processes know."""

from __future__ import annotations

from ...wire.messages import Message, Vocabulary

NAME = "tls"  # of the folder, in Configure


class Settings(Message, frozen=True, kw_only=True):
    """What the layer is to do; texts in PEM are bytes."""

    certificate: bytes  # PEM, the server's own first, then intermediates
    key: bytes  # PEM, not encrypted
    client_ca: bytes = b""  # PEM: who signs the certificates of clients
    client_auth: str = "none"  # optional, required
    alpn: tuple[str, ...] = ()  # that the server speaks, the best first
    minimum_version: str = ""  # a name of ssl.TLSVersion: "TLSv1_2"; empty is ssl's default
    maximum_version: str = ""
    ciphers: str = ""  # in the words of OpenSSL, up to TLS 1.2; empty is ssl's default
    legacy: bool = False  # take versions, keys and ciphers that are too weak for today
    handshake: str = "normal"  # fails, stalls, cut: once the ClientHello has come
    seconds: float = 10.0  # for a handshake
    any_host: bool = False  # ask the test's process for a certificate for each host
    directory: str = ""  # of the test's process, to be removed if that is killed

    def __repr__(self) -> str:
        return "Settings(...)"  # the key is in no log


class Certificate(Message, frozen=True, kw_only=True, tag=90):
    """The answer to CertificateWanted."""

    token: int
    certificate: bytes  # PEM, as in the settings; empty if there is none
    key: bytes  # PEM
    error: str = ""  # why there is none

    def __repr__(self) -> str:
        return f"Certificate(token={self.token}, error={self.error!r}, ...)"  # nor is this key


class CertificateWanted(Message, frozen=True, kw_only=True, tag=91):
    """A client asks for a host that there is no certificate for; it waits for the answer."""

    token: int
    host: str  # as in SNI, in lower case


VOCABULARY = Vocabulary(settings=Settings, commands=(Certificate,), events=(CertificateWanted,))
