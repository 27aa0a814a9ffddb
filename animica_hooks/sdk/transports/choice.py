"""Which transport a client gets, and when: at its first request, and anew after a fork.

Rule 1: what the user gives is used; else ours, on sockets.
Rule 2: a forked child never touches what its parent opened: it makes its own. What it inherits is
kept aside, not closed, because closing would reach into what parent and child share.
Rule 3: of a coroutine's transports there is one for each event loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from animica_hooks.errors import ClientClosed, ConfigurationError

if TYPE_CHECKING:
    import asyncio
    import ssl

    from animica_hooks.sdk.address import Address
    from animica_hooks.sdk.transports import AsyncTransport, Transport
    from animica_hooks.sdk.transports.wire import Proxy

_inherited: Final[list[object]] = []


class Plan:
    """What a user said about connections.

    Args:
        address: the origin.
        proxy: a proxy's URL; or URLs by the scheme of what goes through them, as httpx has it.
        ssl_context: instead of one with the system's authorities.
        http_client: a client of httpx or httpx2.
        transport: a transport; or a transport of httpx or httpx2.
        trust_env: look for a proxy in the environment.

    Raises:
        ConfigurationError: they contradict each other.
    """

    def __init__(
        self,
        address: Address,
        *,
        proxy: str | Mapping[str, str | None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http_client: object = None,
        transport: Any = None,
        trust_env: bool = True,
    ) -> None:
        if http_client is not None and (proxy or ssl_context or transport):
            raise ConfigurationError(
                "http_client brings its own connections: give proxy, ssl_context or transport "
                "to it, not here."
            )
        self.address = address
        self.ssl_context = ssl_context
        self.http_client = http_client
        self.transport = transport
        self._proxy = _proxy_for(address, proxy)
        self._trust_env = trust_env and proxy is None
        if self._proxy is not None:
            _parsed(self._proxy)

    @property
    def is_borrowed(self) -> bool:
        """Whether httpx, or httpx2, is to carry the requests."""
        return self.http_client is not None or any(
            hasattr(self.transport, name) for name in ("handle_request", "handle_async_request")
        )

    def proxy(self) -> str | None:
        """Return the URL of the proxy to go through: the one given, or the environment's."""
        if not self._trust_env or not any(name.lower().endswith("_proxy") for name in os.environ):
            return self._proxy
        from urllib.request import (  # type: ignore[attr-defined] # typeshed lacks the second
            getproxies_environment,
            proxy_bypass_environment,
        )

        address = self.address
        proxies = getproxies_environment()
        if proxy_bypass_environment(f"{address.host}:{address.port}", proxies):
            return None
        found = proxies.get(address.scheme) or proxies.get("all")
        if found is None:
            return None
        return found if "://" in found else f"http://{found}"

    def parsed_proxy(self) -> Proxy | None:
        """Return the proxy to go through."""
        proxy = self.proxy()
        return None if proxy is None else _parsed(proxy)


def _proxy_for(address: Address, given: object) -> str | None:
    if isinstance(given, Mapping):
        schemes = (address.scheme, f"{address.scheme}://", "all", "all://")
        given = next((given[scheme] for scheme in schemes if scheme in given), None)
    if given is None or isinstance(given, str):
        return given
    raise ConfigurationError(
        f"a proxy must be a URL, or URLs by scheme, not {type(given).__name__}."
    )


def _parsed(proxy: str) -> Proxy:
    from animica_hooks.sdk.transports.wire import Proxy

    return Proxy(proxy)


def _check_open(closed: bool) -> None:
    if closed:
        raise ClientClosed("the client is closed: make a new one")


class Connections:
    """The transport of a sync client and its copies."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._made: Transport | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.closed = False

    def get(self) -> Transport:
        """Return the transport for a request.

        Raises:
            ClientClosed: the client was closed.
        """
        _check_open(self.closed)
        if self._pid != os.getpid():
            _inherited.append(self._made)
            self._lock, self._made = threading.Lock(), None
            self._pid = os.getpid()
        made = self._made
        if made is None:
            with self._lock:
                # Another thread may have closed the client just now.
                _check_open(self.closed)
                made = self._made = self._made or self._make()
        return made

    def _make(self) -> Transport:
        plan = self.plan
        if plan.is_borrowed:
            from animica_hooks.sdk.transports.borrowed import BorrowedTransport

            return BorrowedTransport(plan.http_client, plan.transport, plan.proxy)
        if plan.transport is not None:
            given: Transport = plan.transport
            return given
        from animica_hooks.sdk.transports.direct import DirectTransport

        return DirectTransport(
            plan.address, proxy=plan.parsed_proxy(), ssl_context=plan.ssl_context
        )

    def close(self) -> None:
        """Close the connections; requests are refused from now on."""
        if self._pid != os.getpid():
            # The lock may have been held when the process forked, by a thread that is not here.
            self.closed = True
            return
        with self._lock:
            self.closed = True
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def __del__(self) -> None:
        if not self.closed:
            self.close()


class AsyncConnections:
    """The transports of an async client and its copies, one for each event loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._made: dict[asyncio.AbstractEventLoop, AsyncTransport] = {}
        self._pid = os.getpid()
        self.closed = False

    def get(self) -> AsyncTransport:
        """Return the transport for a request in the running event loop.

        Raises:
            ClientClosed: the client was closed.
        """
        _check_open(self.closed)
        if self._pid != os.getpid():
            _inherited.append(self._made)
            self._made = {}
            self._pid = os.getpid()
        from asyncio import get_running_loop

        loop = get_running_loop()
        made = self._made.get(loop)
        if made is None:
            for ended in [other for other in list(self._made) if other.is_closed()]:
                self._made.pop(ended, None)
            made = self._made[loop] = self._make()
        return made

    def _make(self) -> AsyncTransport:
        plan = self.plan
        if plan.is_borrowed:
            from animica_hooks.sdk.transports.borrowed import AsyncBorrowedTransport

            return AsyncBorrowedTransport(plan.http_client, plan.transport, plan.proxy)
        if plan.transport is not None:
            given: AsyncTransport = plan.transport
            return given
        from animica_hooks.sdk.transports.direct_async import AsyncDirectTransport

        return AsyncDirectTransport(
            plan.address, proxy=plan.parsed_proxy(), ssl_context=plan.ssl_context
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop; requests are refused from now on.

        Those of other loops are closed by these loops, when they end or collect them.
        """
        from asyncio import get_running_loop

        self.closed = True
        made, self._made = self._made, {}
        own = made.get(get_running_loop())
        if own is not None and self._pid == os.getpid():
            await own.aclose()
