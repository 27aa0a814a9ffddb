"""HTTP/1.1 without I/O: a request's bytes, and its answer out of bytes.

The grammar is llhttp's, Node's parser, by way of httptools, which the receiver's server rests on as
well. What is ours is the request's head, proxies' tunnels, and what the end of a connection means.

Rule 1: an answer is complete when the parser says so; or, if it has neither length nor chunks,
when the connection ends. Any other end is a broken answer.
Rule 2: a connection is used again only if its answer was complete, said nothing to the contrary,
and brought not a byte more.
Rule 3: informational answers (1xx) are passed over, and so are trailers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from animica_hooks.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    ConfigurationError,
)
from animica_hooks.sdk.transports import check_held

if TYPE_CHECKING:
    from animica_hooks.sdk.address import Address
    from animica_hooks.sdk.flow import Request

MAX_HEAD_BYTES = 256 * 1024

_FRAMES = frozenset({b"content-length", b"transfer-encoding"})


def written(request: Request, proxy: Proxy | None = None) -> bytes:
    """Return the bytes of a request. Its headers were checked when it was made.

    Args:
        request: the request.
        proxy: the proxy that it is sent to, instead of to its origin.
    """
    address, body = request.address, request.body
    target = request.target if proxy is None else address.origin + request.target
    lines = [
        f"{request.method} {target} HTTP/1.1\r\nHost: {address.authority}",
        *[f"{name}: {value}" for name, value in request.headers],
    ]
    if proxy is not None and proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    if body is None:
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1")
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1") + body


class Proxy:
    """An HTTP proxy. Its repr has no credentials.

    Args:
        url: ``http://user:password@host:port``, without credentials if it needs none; ``https``
            for a proxy that is itself spoken to over TLS.

    Raises:
        ConfigurationError: it is not of that form.
    """

    __slots__ = ("authorization", "host", "port", "tls")

    def __init__(self, url: str) -> None:
        from base64 import b64encode
        from urllib.parse import unquote, urlsplit

        try:
            # Bytes of the environment that are not UTF-8 are surrogates here.
            url.encode()
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), 0
        self.tls = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ConfigurationError(
                "a proxy must be of the form http://host:port; for others, SOCKS among them, give "
                "an http_client that has them."
            )
        self.host = parts.hostname
        self.port = port or (443 if self.tls else 80)
        self.authorization: str | None = None
        if parts.username is not None:
            name, password = unquote(parts.username), unquote(parts.password or "")
            self.authorization = f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port}>"

    def tunnel(self, address: Address) -> bytes:
        """Return the request for a tunnel to an origin."""
        host = f"[{address.host}]" if ":" in address.host else address.host
        lines = [f"CONNECT {host}:{address.port} HTTP/1.1", f"Host: {host}:{address.port}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def check_tunnel(reply: Reply) -> None:
    """Check the answer to ``Proxy.tunnel``.

    Raises:
        APIConnectionError: the proxy refused.
    """
    if not 200 <= reply.status < 300:
        raise APIConnectionError(f"the proxy refused the connection with status {reply.status}")
    if reply.pieces:
        raise APIConnectionError("the proxy sent something of its own into the tunnel")


class Reply:
    """One answer, as far as it has come.

    Attributes:
        status: the HTTP status, once ``has_head``.
        headers: name and value, as sent.
        pieces: of the body, in order; taken away by who reads.
        has_head: status and headers have come.
        complete: all has come.
    """

    __slots__ = (
        "_extra",
        "_fed",
        "_framed",
        "_idle",
        "_parser",
        "_stays_open",
        "complete",
        "has_head",
        "headers",
        "pieces",
        "status",
    )

    def __init__(self) -> None:
        self._parser: Any = None
        self._fed = 0
        self._idle = 0
        self._framed = False
        self._extra = False
        self._stays_open = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.has_head = False
        self.complete = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take what has arrived; empty at the connection's end. It keeps nothing of the buffer.

        Raises:
            APIError: it is not HTTP, or it broke off.
        """
        if not data:
            self._end()
            return
        if self._parser is None:
            if self.complete:
                # What follows the answer is nobody's; the connection is not used again.
                self._extra = True
                return
            self._parser = httptools.HttpResponseParser(self)
        held = len(self.pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                raise self._broken("it is not HTTP") from None
            self._extra = True
        if self.complete:
            # It refers to this: without it nobody has to come and collect the two.
            self._parser = None
        self._fed += len(data)
        self._idle = self._idle + len(data) if len(self.pieces) == held else 0
        if self._idle > MAX_HEAD_BYTES and not self.complete:
            raise self._endless()
        check_held(self._fed)

    def _end(self) -> None:
        self._parser = None
        if self.has_head and not self._framed:
            self.complete = True
        if not self.complete:
            raise self._broken("the connection was closed") from EOFError("the server closed it")

    def _endless(self) -> APIError:
        """Return the error for so much without a body: the parser gets ever slower with it."""
        if self.has_head:
            return APIResponseError("the answer does not end, and brings no more of its body")
        return APIConnectionError("the answer's headers do not end")

    def _broken(self, why: str) -> APIError:
        if self.has_head:
            return APIResponseError(f"the answer broke off: {why}")
        return APIConnectionError(f"no answer: {why}")

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._fed = 0
        return data

    def keeps_open(self) -> bool:
        """Tell whether the connection can be used again."""
        return self._stays_open and not self._extra

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._extra = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are not part of the head: https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1
        if not self.has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self.status = status
            self.has_head = True
            self._framed = any(name.lower() in _FRAMES for name, _ in self.headers)

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if self.has_head:
            self.complete = True
            self._stays_open = self._parser.should_keep_alive()
        else:
            self.headers.clear()
