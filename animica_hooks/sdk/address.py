"""Where an API is: its base URL taken apart and checked, without a request being made.

Rule 1: a base URL is ``http(s)://host[:port][/path]`` and nothing else: no credentials, query,
fragment, white space, ``..``, ``//`` or backslash, which parsers are known to read differently.
Rule 2: a redirect is followed only to the very same origin, so that no key goes elsewhere.
"""

from __future__ import annotations

import re
from typing import final

from animica_hooks.errors import ConfigurationError

_BASE = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)",
    re.IGNORECASE | re.ASCII,
)
_STANDARD_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = (
    ("@", "credentials: give the key as api_key"),
    ("?", "a query: give it as default_query"),
    ("#", "a fragment: leave it out"),
    ("\\", "a backslash"),
)


@final
class Address:
    """An API's origin and the path below which it lives.

    Attributes:
        scheme: ``http`` or ``https``.
        host: lower-case; an IPv6 address without its brackets.
        port: always a number.
        authority: what the ``Host`` header says.
        origin: ``scheme://authority``.
        path: without a slash at its end.
    """

    __slots__ = ("authority", "host", "origin", "path", "port", "scheme")

    def __init__(self, url: str) -> None:
        found = _check(url)
        self.scheme = found["scheme"].lower()
        host = found["host"].lower()
        self.host = host.strip("[]")
        self.port = int(found["port"] or _STANDARD_PORTS[self.scheme])
        standard = self.port == _STANDARD_PORTS[self.scheme]
        self.authority = host if standard else f"{host}:{self.port}"
        self.origin = f"{self.scheme}://{self.authority}"
        self.path = found["path"].rstrip("/")

    def __repr__(self) -> str:
        return f"Address({self.origin + self.path!r})"

    def target(self, path: str) -> str:
        """Return the request target of a path of the API; ``../x`` is beside the base's end."""
        base = self.path
        while path.startswith("../"):
            base, path = base.rpartition("/")[0], path[3:]
        return f"{base}/{path.removeprefix('/')}"

    def redirected(self, target: str, location: str) -> str | None:
        """Return the request target that a redirect leads to; None where it leaves the origin."""
        from urllib.parse import urljoin, urlsplit

        try:
            url = urlsplit(urljoin(self.origin + target, location.strip()))
            port = url.port or _STANDARD_PORTS.get(url.scheme)
        except ValueError:
            return None
        same = (url.scheme, url.hostname, port) == (self.scheme, self.host, self.port)
        plain = url.username is None and url.password is None
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if not same or not plain or not path.isascii() or not path.isprintable() or " " in path:
            return None
        return path


def _check(url: object) -> re.Match[str]:
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url must be a string, not {type(url).__name__}.")
    for sign, what in _FORBIDDEN:
        if sign in url:
            raise ConfigurationError(f"base_url has {what}.")
    found = _BASE.fullmatch(url)
    if found is None:
        raise ConfigurationError(
            "base_url must be http://host or https://host, with a port and a path if need be, "
            "in ASCII and without white space."
        )
    path = found["path"].lower().replace("%2e", ".")
    if "//" in path or {"..", "."} & set(path.split("/")) or re.search("%2f|%5c|%0|%1", path):
        raise ConfigurationError("base_url has a path that may be read in several ways: plain it.")
    if not 0 < int(found["port"] or 1) < 65536:
        raise ConfigurationError("base_url has a port that is none.")
    return found
