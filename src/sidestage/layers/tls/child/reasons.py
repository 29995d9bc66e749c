"""Says why a handshake has failed, and what to do about it."""

from __future__ import annotations

import ssl

from ..messages import Settings
from .hello import Hello

TRUST = (
    "have it trust server.ca_file: server.client_context() does in Python, and "
    "server.client_env() has the variables for other programs"
)
# What clients say when they refuse a certificate (RFC 8446 6.2), as OpenSSL names it.
_REFUSALS = {
    "UNKNOWN_CA": f"does not trust who has signed it: {TRUST}",
    "CERTIFICATE_EXPIRED": "considers it expired, or not yet valid",
    "BAD_CERTIFICATE": (
        "refuses it: it is for another host than the client means, not valid yet, or its key is "
        "too weak; the error of the client says which"
    ),
    "CERTIFICATE_UNKNOWN": f"refuses it, often as it does not trust who has signed it: {TRUST}",
    "UNSUPPORTED_CERTIFICATE": "does not support its kind",
    "CERTIFICATE_REVOKED": "considers it revoked",
    "ACCESS_DENIED": "denies access",
}


def asked(hello: Hello) -> str:
    """Which host a client has asked for."""
    if hello.sni is None:
        return "that named no host"
    return f"that asked for {hello.sni!r}"


def why(error: ssl.SSLError, hello: Hello, settings: Settings) -> str:
    """What is wrong, from what OpenSSL has raised, as the end of a sentence about a client."""
    if alert := _alert(error):
        return _by_alert(alert, hello)
    reason = error.reason or ""
    match reason:
        case "UNSUPPORTED_PROTOCOL" | "VERSION_TOO_LOW" | "UNKNOWN_PROTOCOL":
            return (
                f"client and server have no version of TLS in common: {_versions(hello, settings)}"
            )
        case "NO_SHARED_CIPHER" | "NO_SUITABLE_SIGNATURE_ALGORITHM":
            ciphers = f" (ciphers={settings.ciphers!r})" if settings.ciphers else ""
            return f"client and server have no cipher in common{ciphers} that suits the certificate"
        case "NO_CIPHERS_AVAILABLE":
            limits = _limits(settings)
            return (
                f"none of the server's ciphers (ciphers={settings.ciphers!r}) is of a version of "
                f"TLS that it takes ({limits}): leave out ciphers, or name others"
            )
        case "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return (
                "the client sent no certificate, and the server requires one: "
                "TLS.client_certificate() makes one"
            )
        case "CERTIFICATE_VERIFY_FAILED":
            message = getattr(error, "verify_message", "") or "not verified"
            return (
                f"the certificate of the client is refused ({message}): "
                "use one of TLS.client_certificate(), or of the CA that the server was given"
            )
        case _:
            return f"OpenSSL says {reason or error}"


def broken(error: ssl.SSLError) -> str:
    """Why a connection is over after its handshake, in a sentence."""
    if alert := _alert(error):
        return f"the client broke off the connection by the TLS alert {alert.lower()}"
    return f"a TLS record is refused: OpenSSL says {error.reason or error}"


def _alert(error: ssl.SSLError) -> str:
    """The alert that the client has sent, as OpenSSL names it; empty if it has sent none."""
    kind, _, alert = (error.reason or "").partition("_ALERT_")
    return alert if kind.startswith(("TLSV1", "SSLV3")) else ""


def _by_alert(alert: str, hello: Hello) -> str:
    name = alert.lower()
    if alert in _REFUSALS:
        said = f"the client got the certificate and {_REFUSALS[alert]} (TLS alert {name})"
        if alert == "BAD_CERTIFICATE" and hello.sni is not None:
            said += f"; TLS(hosts={hello.sni!r}) is for the host that it has asked for"
        return said
    if alert == "PROTOCOL_VERSION":
        return f"the client speaks no version of TLS that the server does (TLS alert {name})"
    return f"the client sent the TLS alert {name}"


def _versions(hello: Hello, settings: Settings) -> str:
    theirs = ", ".join(hello.versions) or "none that is known"
    return f"the client offers {theirs}, the server takes {_limits(settings)}"


def _limits(settings: Settings) -> str:
    limits = [
        f"{word} {name.replace('_', '.')}"
        for word, name in (
            ("at least", settings.minimum_version),
            ("at most", settings.maximum_version),
        )
        if name
    ]
    return " and ".join(limits) or "later ones"
