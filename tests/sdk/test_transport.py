"""What is below the clients: connections, proxies, TLS, threads, event loops, forks."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from typing import Any

import httpx
import httpx2
import pytest
from anyio import to_thread
from apiserver import APIServer, Hold, Space, steps
from client_kinds import collected, result, until_open
from hypothesis import given
from hypothesis import strategies as st

from animica_hooks import errors
from animica_hooks.sdk import Animica, AsyncAnimica, Timeout
from animica_hooks.sdk.address import Address
from animica_hooks.sdk.flow import Request
from animica_hooks.sdk.transports.direct import DirectTransport
from animica_hooks.sdk.transports.direct_async import AsyncDirectLine, AsyncDirectTransport
from animica_hooks.sdk.transports.pool import Pool
from animica_hooks.sdk.transports.wire import MAX_HEAD_BYTES, Proxy, Reply

CHAT: dict[str, Any] = {"model": "anm-fast-8b", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(params=[Animica, AsyncAnimica])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def read(*pieces: bytes) -> Reply:
    """A reply out of these bytes."""
    reply = Reply()
    for piece in pieces:
        reply.feed(piece)
    return reply


@asynccontextmanager
async def _closing(client: Any) -> AsyncIterator[Any]:
    try:
        yield client
    finally:
        await result(client.close())


OK = b"HTTP/1.1 200 OK\r\n"
REQUEST = Request(
    address=Address("http://localhost"),
    method="GET",
    target="/",
    headers=[],
    body=None,
    timeout=Timeout(20),
    deadline=None,
    stream=False,
)


@pytest.mark.parametrize(
    ("data", "body", "complete", "open_"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True, True),
        (OK + b"Content-Length: 5\r\n\r\nhel", b"hel", False, False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", True, True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"hello", False, False),
        (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True, False),
        (OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n", b"hello", True, False),
        (OK + b"Content-Length: 5\r\n\r\nhello\x00\x01", b"hello", True, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", b"a", True, True),
        (b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", b"a", True, True),
    ],
)
def test_a_reply_is_read_however_it_is_cut(
    data: bytes, body: bytes, complete: bool, open_: bool
) -> None:
    """Its end, and whether its connection can be used again, by HTTP's rules."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        reply = read(*pieces)

        assert (200 if b"200" in data else 204) == reply.status
        assert (body, complete, open_) == (reply.take(), reply.complete, reply.keeps_open())
        assert all(name != b"A" for name, _ in reply.headers)


def test_a_body_without_length_ends_with_the_connection() -> None:
    """And with nothing else; any other body must have come to its end."""
    reply = read(OK + b"\r\nhello", b"")

    assert (b"hello", True, False) == (reply.take(), reply.complete, reply.keeps_open())
    for head in (b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"):
        with pytest.raises(errors.APIResponseError, match="broke off"):
            read(OK + head + b"\r\n", b"")
    for nothing in (b"", OK, b"HTTP/1.1 100 Continue\r\n\r\n"):
        with pytest.raises(errors.APIConnectionError, match="no answer"):
            read(*[nothing] * bool(nothing), b"")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Bad Header: x\r\n\r\n",
        OK + b"X: " + b"a" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    """Two lengths, no status, a head without end: an error of ours, and no other."""
    with pytest.raises(errors.APIError):
        read(data, b"")


def test_no_connection_changes_its_protocol() -> None:
    """An upgrade that nobody asked for is an answer like others, and the connection's last."""
    reply = read(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc")

    assert (101, True, False, b"") == (
        reply.status,
        reply.complete,
        reply.keeps_open(),
        reply.take(),
    )


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_bytes_of_any_kind_raise_only_our_errors(pieces: list[bytes]) -> None:
    """Whatever a server sends, within a head or a body."""
    for start in (b"", OK + b"Transfer-Encoding: chunked\r\n\r\n", OK):
        try:
            read(*[start] * bool(start), *filter(None, pieces), b"")
        except errors.APIError:
            pass


async def test_a_connection_serves_again(kind: Any, space: Space) -> None:
    """Answers, errors and whole streams leave it usable; it has TCP keep-alive."""
    client = kind(space.key, base_url=space.animica, max_retries=0)
    space.script(steps.normal(), steps.error(400))
    await result(client.models())
    with pytest.raises(errors.BadRequestError):
        await result(client.models())
    await collected(client.chat_completions(**CHAT, stream=True))
    await result(client.models())

    assert 1 == len({request.connection for request in space.requests})
    await result(client.close())


async def test_connections_are_kept_alive_by_the_kernel(kind: Any, space: Space) -> None:
    """A peer that vanished while a long answer is awaited is found out, without its help."""
    port = Address(space.animica).port
    async with _closing(kind(space.key, base_url=space.animica)) as client:
        await result(client.models())
        ours = [
            one
            for one in gc.get_objects()
            if isinstance(one, socket.socket) and one.fileno() >= 0 and _peer_port(one) == port
        ]

        assert ours
        for one in ours:
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            # Linux's own two hours would be of no use.
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert 60 == one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def _peer_port(one: socket.socket) -> int | None:
    try:
        return int(one.getpeername()[1])
    except (OSError, IndexError):
        return None


async def test_connections_that_the_server_closed_are_not_used(kind: Any, space: Space) -> None:
    """A request after a pause does not fail because the server went away in between."""
    client = kind(space.key, base_url=space.animica, max_retries=0)
    await result(client.models())
    await to_thread.run_sync(space.drop_connections)
    await asyncio.sleep(0)
    await result(client.models())

    assert 2 == len({request.connection for request in space.requests})
    await result(client.close())


async def test_a_pool_that_is_full_makes_wait(space: Space) -> None:
    """No longer than the pool's timeout; who waits within it gets the connection."""
    address = Address(space.animica)
    timeout = Timeout(20, pool=0.05)
    client = Animica(
        space.key, base_url=space.animica, transport=DirectTransport(address, max_connections=1)
    )
    stream = client.chat.completions.create(**CHAT, stream=True)
    with pytest.raises(errors.APITimeoutError, match="free connection"):
        client.models(timeout=timeout, max_retries=0)
    stream.close()
    client.models(timeout=timeout)
    client.close()
    other = AsyncAnimica(
        space.key,
        base_url=space.animica,
        transport=AsyncDirectTransport(address, max_connections=1),
    )
    held = await other.chat.completions.create(**CHAT, stream=True)
    with pytest.raises(errors.APITimeoutError, match="free connection"):
        await other.models(timeout=timeout, max_retries=0)
    waiting = asyncio.create_task(other.models())
    await held.close()

    assert "data" in await waiting
    await other.close()


def test_one_client_serves_several_event_loops(space: Space) -> None:
    """Each ``asyncio.run`` has connections of its own, which end with it, without a warning."""
    client = AsyncAnimica(space.key, base_url=space.animica)

    async def use() -> None:
        await asyncio.gather(*[client.models() for _ in range(3)])

    for _ in range(2):
        asyncio.run(use())
        space.wait_for(lambda: space.open_connections == 0)
    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 12 == len(space.requests)
    gc.collect()


def test_a_stream_belongs_to_its_event_loop(space: Space) -> None:
    """Reading it in another is told clearly."""
    client = AsyncAnimica(space.key, base_url=space.animica)

    async def begin() -> Any:
        return await client.chat.completions.create(**CHAT, stream=True)

    stream = asyncio.run(begin())
    with pytest.raises(errors.APIRequestError, match="event loop"):
        asyncio.run(collected(stream))


def test_threads_share_a_client(space: Space) -> None:
    """Many at once, each with its own answer."""
    with (
        Animica(space.key, base_url=space.animica) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        texts = [str(number) for number in range(64)]

        def ask(text: str) -> str:
            messages = [{"role": "user", "content": text}]
            answer = client.chat.completions.create(model="anm-fast-8b", messages=messages)
            return answer.choices[0].message.content or ""

        assert [f"You said: {text}" for text in texts] == list(threads.map(ask, texts))
        assert len({request.connection for request in space.requests}) <= 8


def test_a_forked_child_has_connections_of_its_own(space: Space) -> None:
    """It does not use its parent's, nor closes them, be it while a stream is under way."""
    client = Animica(space.key, base_url=space.animica)
    waiting = AsyncAnimica(space.key, base_url=space.animica)
    runner = asyncio.Runner()
    runner.run(waiting.models())
    stream = client.chat.completions.create(**CHAT, stream=True)
    first = next(stream)
    client.models()
    fork = multiprocessing.get_context("fork")

    def use() -> None:
        client.models()
        client.close()
        asyncio.run(waiting.models())
        gc.collect()
        os._exit(0)

    with _quiet():
        child = fork.Process(target=use)
        child.start()
        child.join(20)

    assert 0 == child.exitcode
    assert "Hi" in "".join(c.choices[0].delta.content or "" for c in [first, *stream])
    client.models()
    runner.run(waiting.models())
    numbers = [request.connection for request in space.requests]
    # The parent's models, stream and models; the child's two; the parent's two.
    assert numbers[3] not in numbers[:3]
    assert numbers[4] not in numbers[:3]
    assert numbers[6] == numbers[0]
    runner.run(waiting.close())
    runner.close()
    client.close()


def test_a_forked_child_closes_what_it_never_used(space: Space) -> None:
    """Without waiting for a lock that a thread of its parent holds, nor closing for its parent."""
    client = Animica(space.key, base_url=space.animica)
    client.models()

    def close() -> None:
        client.close()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=close)
    with _quiet(), client._connections._lock:
        child.start()
        child.join(10)
        child.kill()
        child.join()

    assert 0 == child.exitcode
    client.models()
    assert 1 == len({request.connection for request in space.requests})
    client.close()


def test_a_forked_child_leaves_its_parents_loop_alone(space: Space) -> None:
    """In the very event loop that its parent was using it opens connections of its own."""
    client = AsyncAnimica(space.key, base_url=space.animica)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.models())

    def use() -> None:
        loop.run_until_complete(client.models())
        os._exit(0)

    with _quiet():
        child = multiprocessing.get_context("fork").Process(target=use)
        child.start()
        child.join(20)
    loop.run_until_complete(client.models())
    loop.run_until_complete(client.close())
    loop.close()

    parents, childs, again = [request.connection for request in space.requests]
    assert (0, True) == (child.exitcode, childs != parents)
    assert parents == again


def test_a_closed_client_leaves_nothing_to_its_loop(space: Space) -> None:
    """No task is left for a loop that is closed right after it."""
    told: list[dict[str, Any]] = []
    client = AsyncAnimica(space.key, base_url=space.animica)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    loop.run_until_complete(client.models())
    loop.run_until_complete(client.close())
    loop.close()
    del client
    gc.collect()

    assert [] == told


class _Idle:
    """A connection that could be kept."""

    closed = False

    def is_usable(self) -> bool:
        return True

    def is_idle(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def test_a_connection_given_back_to_a_closing_pool_is_closed() -> None:
    """Though the pool is closed by another thread at the very moment."""

    class Closing(list[Any]):
        def append(self, line: Any) -> None:
            pool.close()
            super().append(line)

    pool = Pool(_Idle, 1)
    line = pool.take(REQUEST)
    pool._idle = Closing()
    pool.give_back(line)

    assert line.closed


def test_a_client_closed_at_its_first_request_opens_nothing(space: Space) -> None:
    """Though another thread closes it between its check and the making of a transport."""
    client = Animica(space.key, base_url=space.animica)
    connections = client._connections

    class Closing:
        def __enter__(self) -> None:
            connections._lock = threading.Lock()
            connections.close()

        def __exit__(self, *error: object) -> None:
            pass

    connections._lock = Closing()  # type: ignore[assignment]
    with pytest.raises(errors.ClientClosed):
        client.models()
    assert None is connections._made


async def test_a_server_that_is_gone_at_once_is_not_waited_for() -> None:
    """The end of a connection may be read together with its beginning, as in TLS."""
    line = AsyncDirectLine(Address("http://localhost"), None, None, memoryview(bytearray(100)))

    class Closed(asyncio.Transport):
        def write(self, data: Any) -> None:
            pass

    line.connection_made(Closed())
    line.eof_received()
    with pytest.raises(errors.APIConnectionError, match="closed"):
        await asyncio.wait_for(line.send(REQUEST), 5)


@contextmanager
def _quiet() -> Iterator[None]:
    """Forking while threads run is what is tested here; newer Pythons warn of it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


async def test_a_client_closes_itself(kind: Any, space: Space) -> None:
    """Connections end with the last reference to it, at once, without a warning."""
    client = kind(space.key, base_url=space.animica)
    await result(client.models())
    del client
    gc.collect()

    await until_open(space, 0)


async def test_an_answer_is_freed_without_the_garbage_collector(kind: Any, space: Space) -> None:
    """Nothing in it refers to itself: memory does not grow between two collections."""
    async with _closing(kind(space.key, base_url=space.animica)) as client:
        await result(client.models())
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await result(client.models())
                await collected(client.chat_completions(**CHAT, stream=True))
            replies = [one for one in gc.get_objects() if isinstance(one, Reply)]
        finally:
            gc.enable()
    assert len(replies) <= 1  # the connection's last


def test_connecting_takes_no_longer_for_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for all of a name's addresses together, and none of them has all of it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf, ExitStack() as full:
        deaf.listen(0)
        port = deaf.getsockname()[1]
        for _ in range(2):  # Linux does not answer who comes after that
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        kept = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: kept * 4)
        tried: list[float | None] = []

        class Noted(socket.socket):
            def connect(self, address: Any) -> None:
                tried.append(self.gettimeout())
                super().connect(address)

        monkeypatch.setattr(socket, "socket", Noted)
        with (
            closing(Animica("sk-x", base_url=f"http://localhost:{port}", max_retries=0)) as client,
            pytest.raises(errors.APITimeoutError, match="connecting"),
        ):
            client.with_options(timeout=Timeout(9, connect=0.8)).models()
    assert 4 == len(tried)
    assert all(limit is not None and limit <= 0.21 for limit in tried)


async def test_a_cancelled_stream_lets_go_though_it_is_held(space: Space) -> None:
    """The connection does not wait for the stream to be collected."""
    hold = Hold()
    space.always(steps.held(hold, after=1))
    async with _closing(AsyncAnimica(space.key, base_url=space.animica)) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

        await until_open(space, 0)
        assert [] == await collected(stream)
    hold.release()


async def test_cancelling_leaves_nothing_behind(space: Space) -> None:
    """A hundred streams cancelled in their middle: no connection stays, and no place is lost."""
    hold = Hold()
    space.always(steps.held(hold, after=1))
    transport = AsyncDirectTransport(Address(space.animica), max_connections=10)
    client = AsyncAnimica(space.key, base_url=space.animica, transport=transport)

    async def follow(begun: asyncio.Event) -> None:
        async for _ in await client.chat_completions(**CHAT, stream=True):
            begun.set()

    for _ in range(100):
        begun = asyncio.Event()
        task = asyncio.create_task(follow(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await until_open(space, 0)
    await client.close()


def _resolved(port: int, *hosts: str) -> Any:
    """What a loop's ``getaddrinfo`` is replaced by, so that a name has these addresses."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0] for host in hosts]

    return getaddrinfo


async def test_cancelling_a_connect_leaves_no_socket(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever step, of a name with several addresses: each socket is closed by its owner."""
    port = Address(space.animica).port
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", _resolved(port, "::1", "127.0.0.1"))
    made: list[socket.socket] = []
    own = threading.get_ident()

    class Noted(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            # The server's are made in a thread of its own.
            if threading.get_ident() == own:
                made.append(self)

    monkeypatch.setattr(socket, "socket", Noted)
    for steps_taken in range(25):
        client = AsyncAnimica(space.key, base_url=f"http://localhost:{port}", max_retries=0)
        task = asyncio.ensure_future(client._connections.get().send(REQUEST))
        for _ in range(steps_taken):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await (await task).aclose()
        await client.close()
        # The event loop closes what it had made a transport of in its next rounds.
        for _ in range(3):
            await asyncio.sleep(0)

        assert 0 == sum(one.fileno() != -1 for one in made), steps_taken
    assert len(made) >= 20


@pytest.mark.parametrize(
    "hosts", [("::1", "127.0.0.1"), ("127.0.0.2", "127.0.0.3", "::1", "127.0.0.1")]
)
async def test_another_address_is_tried_where_one_does_not_answer(
    space: Space, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...]
) -> None:
    """At once where it refuses; the last failure is told where all do."""
    port = Address(space.animica).port
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _resolved(port, *hosts))
    async with AsyncAnimica(
        space.key, base_url=space.animica.replace("127.0.0.1", "localhost"), max_retries=0
    ) as client:
        assert "data" in await client.models()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _resolved(1, *hosts))
    async with AsyncAnimica("x", base_url="http://localhost:1", max_retries=0) as client:
        with pytest.raises(errors.APIConnectionError, match="could not connect"):
            await client.models()


async def test_an_address_that_is_silent_is_passed_after_its_head_start(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting does not wait for it to time out, and it is given up then."""
    loop = asyncio.get_running_loop()
    port = Address(space.animica).port
    monkeypatch.setattr(loop, "getaddrinfo", _resolved(port, "127.0.0.9", "127.0.0.1"))
    given_up: list[object] = []
    connect = loop.sock_connect

    async def silent(opened: socket.socket, address: Any) -> None:
        if address[0] != "127.0.0.9":
            await connect(opened, address)
            return
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            given_up.append(address)
            raise

    monkeypatch.setattr(loop, "sock_connect", silent)
    async with AsyncAnimica(
        space.key, base_url=space.animica.replace("127.0.0.1", "localhost"), timeout=5
    ) as client:
        assert "data" in await client.models()
    assert 1 == len(given_up)


@pytest.mark.parametrize("package", [httpx, httpx2])
async def test_a_client_of_httpx_takes_what_ours_takes(
    kind: Any, space: Space, package: Any
) -> None:
    """Headers in Latin-1 too; a URL that is too long for it is an error of ours."""
    own = package.Client() if kind is Animica else package.AsyncClient()
    client = kind(space.key, base_url=space.animica, http_client=own)
    await result(client.models(extra_headers={"X-Name": "Bücher"}))

    assert "Bücher" == space.last.header("x-name")
    with pytest.raises(errors.APIRequestError, match="too long"):
        await result(client.models(extra_query={"q": "x" * 70_000}))
    own.close() if kind is Animica else await own.aclose()


@pytest.mark.parametrize("package", [httpx, httpx2])
async def test_a_client_of_httpx_carries_requests(kind: Any, space: Space, package: Any) -> None:
    """Answers, streams, errors and timeouts are the same over it; it is left open."""
    own = package.Client() if kind is Animica else package.AsyncClient()
    client = kind(space.key, base_url=space.animica, http_client=own, max_retries=0)
    hold = Hold()
    space.script(
        steps.normal(),
        steps.normal(),
        steps.reset(),
        steps.truncated(),
        steps.cut(2),
        steps.held(hold),
        steps.held(hold),
    )
    models = await result(client.models())
    chunks = await collected(client.chat_completions(**CHAT, stream=True))
    with pytest.raises(errors.APIConnectionError):
        await result(client.models())
    with pytest.raises(errors.APIResponseError):
        await result(client.models())
    with pytest.raises(errors.StreamInterrupted):
        await collected(client.chat_completions(**CHAT, stream=True))
    with pytest.raises(errors.APITimeoutError):
        await result(client.models(timeout=0.1))
    with pytest.raises(errors.APITimeoutError):
        await result(client.models(deadline=0.1))
    hold.release()

    assert (True, True) == ("data" in models, len(chunks) > 2)
    await result(client.close())
    assert not own.is_closed
    own.close() if kind is Animica else await own.aclose()
    with pytest.raises(errors.ClientClosed):
        await result(kind(space.key, base_url=space.animica, http_client=own).models())


async def test_redirects_are_ours_to_follow(kind: Any, space: Space) -> None:
    """A user's client that would follow them anywhere does not: the key stays at its origin."""
    own = (httpx.Client if kind is Animica else httpx.AsyncClient)(follow_redirects=True)
    client = kind(space.key, base_url=space.animica, http_client=own)
    space.script(steps.redirected(307, space.animica.replace("127.0.0.1", "localhost") + "/models"))
    with pytest.raises(errors.APIStatusError, match="was not followed"):
        await result(client.models())

    assert 1 == len(space.requests)
    own.close() if kind is Animica else await own.aclose()


async def test_a_transport_of_httpx_carries_requests(kind: Any, space: Space) -> None:
    """As in the anthropic document: ``transport=httpx.HTTPTransport(local_address=...)``."""
    made = httpx.HTTPTransport if kind is Animica else httpx.AsyncHTTPTransport
    client = kind(space.key, base_url=space.animica, transport=made(local_address="0.0.0.0"))

    assert "data" in await result(client.models())
    await result(client.close())


async def test_tls_is_verified(kind: Any, space: Space, api_server: APIServer) -> None:
    """A stranger's certificate is refused before the key is sent; one that is trusted is not."""
    url = space.url("animica", space.secure_origin)
    stranger = kind(space.key, base_url=url, max_retries=0)
    with pytest.raises(errors.APIConnectionError, match="certificate"):
        await result(stranger.models())
    await result(stranger.close())
    context = ssl.create_default_context()
    api_server.authority.configure_trust(context)
    client = kind(space.key, base_url=url, ssl_context=context)

    assert "data" in await result(client.models())
    assert len(await collected(client.chat_completions(**CHAT, stream=True))) > 2
    assert 1 == len({request.connection for request in space.requests})
    await result(client.close())


class ProxyServer:
    """An HTTP proxy: forwards what is for http, and makes tunnels."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.heads: list[bytes] = []
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and close all connections."""
        self._listener.close()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        self._open.append(near)
        data = b""
        while b"\r\n\r\n" not in data:
            data += near.recv(65536)
        self.heads.append(data.partition(b"\r\n\r\n")[0])
        method, target, *_ = data.split(b" ", 2)
        if self._refuse:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            near.close()
            return
        where = target if method == b"CONNECT" else target.split(b"/", 3)[2]
        host, _, port = where.decode().rpartition(":")
        far = socket.create_connection((host, int(port)))
        self._open.append(far)
        if method == b"CONNECT":
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # The origin takes the absolute form, too.
            far.sendall(data)
        threading.Thread(target=_pump, args=(near, far), daemon=True).start()
        _pump(far, near)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.mark.parametrize("how", ["argument", "mapping", "environment"])
@pytest.mark.parametrize("secure", [False, True])
async def test_requests_go_through_a_proxy(
    kind: Any,
    space: Space,
    api_server: APIServer,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    secure: bool,
) -> None:
    """Given or from the environment, with its credentials; a tunnel hides key and request."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    with closing(ProxyServer()) as proxy:
        url = f"http://user:p%40ss@{proxy.address}"
        context = ssl.create_default_context()
        api_server.authority.configure_trust(context)
        options: dict[str, Any] = {}
        scheme = "https" if secure else "http"
        match how:
            case "argument":
                options = {"proxy": url}
            case "mapping":
                options = {"proxies": {f"{scheme}://": url}}
            case _:
                monkeypatch.setenv(f"{scheme}_proxy", url)
        client = kind(
            space.key,
            base_url=space.url("animica", space.secure_origin if secure else None),
            ssl_context=context if secure else None,
            **options,
        )

        assert "data" in await result(client.models())
        (head,) = proxy.heads
        assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in head
        assert head.startswith(b"CONNECT " if secure else b"GET http://")
        assert secure is (space.key.encode() not in head)
        assert not space.last.has("proxy-authorization") if secure else True
        await result(client.close())


async def test_no_proxy_is_heeded(kind: Any, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that the environment names are reached directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    client = kind(space.key, base_url=space.animica, max_retries=0)
    with pytest.raises(errors.APIConnectionError):
        await result(client.models())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    other = kind(space.key, base_url=space.animica)

    assert "data" in await result(other.models())
    await result(other.close())


@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_that_refuses_is_told(kind: Any, space: Space, secure: bool) -> None:
    """With its status, and without its credentials."""
    with closing(ProxyServer(refuse=True)) as proxy:
        client = kind(
            space.key,
            base_url=space.url("animica", space.secure_origin if secure else None),
            proxy=f"http://user:whsec_CANARY@{proxy.address}",
            max_retries=0,
        )
        with pytest.raises(errors.APIError, match="407") as caught:
            await result(client.models())

        assert "CANARY" not in str(caught.value) + repr(caught.value)
        await result(client.close())


@pytest.mark.parametrize("status", [200, 407])
async def test_a_tunnel_that_was_not_made_carries_nothing(kind: Any, status: int) -> None:
    """However open the proxy keeps it: what comes next would go to the proxy in plain text."""
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            with listener.accept()[0] as opened:
                asked.append(opened.recv(65536))
                opened.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
                while data := opened.recv(65536):
                    # TLS begins with the bytes of a handshake, to which nobody answers here.
                    asked.extend([data] if not data.startswith(b"\x16\x03") else ())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        client = kind(
            "anm_live_CANARY",
            base_url="https://api.example.com",
            proxy=f"http://127.0.0.1:{listener.getsockname()[1]}",
            timeout=Timeout(5, connect=0.3),
            max_retries=1,
        )
        with pytest.raises(errors.APIConnectionError, match="407" if status == 407 else "connect"):
            await result(client.models())
        await result(client.close())
        await to_thread.run_sync(serving.join)

    assert 2 == len(asked)
    assert all(request.startswith(b"CONNECT ") for request in asked)
    assert not any(b"CANARY" in request for request in asked)


def _drip(listener: socket.socket) -> None:
    with closing(listener), closing(listener.accept()[0]) as opened, suppress(OSError):
        for sign in b"HTTP/1.1 200 OK\r\nSlowly: so\r\n":
            opened.sendall(bytes([sign]))
            time.sleep(0.05)


@pytest.mark.parametrize("limits", [{"timeout": Timeout(20, connect=0.3)}, {"deadline": 0.3}])
async def test_connecting_has_one_limit_for_all_of_it(kind: Any, limits: dict[str, Any]) -> None:
    """A proxy that answers byte by byte does not begin it anew with each."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = kind("k", base_url="https://api.example.com", proxy=proxy, max_retries=0, **limits)
    dripping = threading.Thread(target=_drip, args=(listener,))
    dripping.start()
    with pytest.raises(errors.APITimeoutError):
        await result(client.models())
    await result(client.close())
    await to_thread.run_sync(dripping.join)


def test_a_proxy_hides_its_credentials() -> None:
    """Its repr has the host alone."""
    assert "<Proxy h:8080>" == repr(Proxy("http://user:whsec_CANARY@h:8080"))


async def test_large_bodies_go_both_ways(kind: Any, space: Space) -> None:
    """Megabytes sent and received, and read slowly: nothing is lost, nothing piles up."""
    text = "x" * 3_000_000
    space.reply = text
    client = kind(space.key, base_url=space.animica)
    messages = [{"role": "user", "content": text}]
    answer = await result(client.chat_completions(model="anm-fast-8b", messages=messages))

    assert text == answer["choices"][0]["message"]["content"]
    assert text == space.last.json["messages"][0]["content"]
    await result(client.close())


async def test_writing_has_a_time_of_its_own(kind: Any, space: Space) -> None:
    """A server that does not read runs into the time to write."""
    hold = Hold()
    space.script(steps.stalled_upload(hold))
    client = kind(space.key, base_url=space.animica, max_retries=0)
    messages = [{"role": "user", "content": "x" * 30_000_000}]
    with pytest.raises(errors.APITimeoutError):
        await result(
            client.chat_completions(
                model="anm-fast-8b", messages=messages, timeout=Timeout(20, write=0.1)
            )
        )
    hold.release()
    await result(client.close())
