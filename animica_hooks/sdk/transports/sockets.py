"""What all our sockets have."""

from __future__ import annotations

import socket
import ssl

_KEEPALIVE_S = 60


def keep_alive(opened: socket.socket) -> None:
    """Let the kernel find out about peers that vanished while a long answer was awaited."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", _KEEPALIVE_S), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if (option := getattr(socket, name, None)) is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)


def tls_context(given: ssl.SSLContext | None) -> ssl.SSLContext:
    """Return what TLS connections share: what was given, or one with the system's authorities.

    These are read from where ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` say, where these are set.
    """
    if given is not None:
        return given
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
