"""Deliver signed bodies over HTTP, with nothing but the standard library."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from animica_hooks.core.signature import HEADER
from animica_hooks.errors import AnimicaHooksError, ConfigurationError

TIMEOUT_S = 30.0


class NotDelivered(AnimicaHooksError):
    """Nothing answered at the address."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a delivery was answered, and after how many seconds."""

    status: int
    seconds: float


class Sender:
    """Delivers over one connection that is kept open.

    Raises:
        ConfigurationError: ``url`` is not one of HTTP.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"{url!r} is not a URL.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is not a URL: write http://host:port/path.")
        over_tls = parts.scheme == "https"
        kind = http.client.HTTPSConnection if over_tls else http.client.HTTPConnection
        self._url = url
        self._connection = kind(parts.hostname, port, timeout=TIMEOUT_S)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def deliver(self, body: bytes, signature: str) -> Answered:
        """Deliver once; again where a kept connection turns out to be closed.

        Raises:
            NotDelivered: there was no answer.
        """
        kept = self._connection.sock is not None
        try:
            return self._post(body, signature)
        except (ConnectionError, http.client.BadStatusLine) as error:
            self._connection.close()
            if not kept:
                raise self._not_delivered(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise self._not_delivered(error) from error
        try:
            return self._post(body, signature)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._not_delivered(error) from error

    def _post(self, body: bytes, signature: str) -> Answered:
        began = time.perf_counter()
        headers = {"Content-Type": "application/json", HEADER: signature}
        self._connection.request("POST", self._target, body, headers)
        with self._connection.getresponse() as response:
            response.read()
            return Answered(response.status, time.perf_counter() - began)

    def _not_delivered(self, error: Exception) -> NotDelivered:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return NotDelivered(f"there was no answer from {self._url}: {cause}.")
