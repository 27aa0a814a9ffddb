"""What stands in front of the receiver: it works, or the cause is named, in time."""

import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI
from receiving import (
    PATIENCE_S,
    SECRET,
    Reply,
    Server,
    exchange,
    parse_reply,
    raw,
    rows,
    signed,
    url,
)
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from animica_hooks import Hooks
from animica_hooks.testing import make_event

BODY_DEADLINE_S = 0.3

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Next: TypeAlias = Callable[[Request], Awaitable[Response]]


def _based(dispatch: Callable[[Request, Next], Awaitable[Response]]) -> Callable[[Any], Any]:
    return lambda app: BaseHTTPMiddleware(app, dispatch=dispatch)


async def _only_looks(request: Request, call_next: Next) -> Response:
    response = await call_next(request)
    response.headers["x-seen"] = "1"
    return response


async def _reads_body(request: Request, call_next: Next) -> Response:
    await request.body()
    return await call_next(request)


async def _reads_json(request: Request, call_next: Next) -> Response:
    await request.json()
    return await call_next(request)


async def _reads_stream(request: Request, call_next: Next) -> Response:
    async for _ in request.stream():
        pass
    return await call_next(request)


async def _reads_some_of_stream(request: Request, call_next: Next) -> Response:
    async for _ in request.stream():
        break
    return await call_next(request)


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


@dataclass
class _Consumes:
    """Reads the body and passes on what is left: nothing."""

    app: Any

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        await _read(receive)
        await self.app(scope, receive, send)


@dataclass
class _ConsumesBehindItsOwn:
    """The same, with a ``receive`` of its own, so that nobody can ask the server what is left."""

    app: Any

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        async def own() -> Message:
            return await receive()

        await _read(receive)
        await self.app(scope, own, send)


@dataclass
class _ConsumesTheFirst:
    """Reads only the first piece of the body."""

    app: Any

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        await receive()
        await self.app(scope, receive, send)


@dataclass
class _Replays:
    """Reads the body, and gives it again, changed or not."""

    app: Any
    change: Callable[[bytes], bytes] = lambda body: body

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        body = self.change(await _read(receive))

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


@dataclass
class _PassesOn:
    """Hands on each piece as it comes."""

    app: Any

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        async def one() -> Message:
            return await receive()

        await self.app(scope, one, send)


def _fastapi(app: Any) -> Any:
    outer = FastAPI()
    outer.middleware("http")(_reads_body)
    outer.mount("/", app)
    return outer


WORK: dict[str, Callable[[Any], Any]] = {
    "none": lambda app: app,
    "GZip": lambda app: GZipMiddleware(app, minimum_size=0),
    "CORS": lambda app: CORSMiddleware(app, allow_origins=["*"]),
    "TrustedHost": lambda app: TrustedHostMiddleware(app, allowed_hosts=["hooks.test"]),
    "looks": _based(_only_looks),
    "body": _based(_reads_body),
    "json": _based(_reads_json),
    "body-twice": lambda app: _based(_reads_body)(_based(_reads_body)(app)),
    "body-and-passes-on": lambda app: _based(_reads_body)(_PassesOn(app)),
    "FastAPI": _fastapi,
    "replays": _Replays,
    "passes-on": _PassesOn,
}
CONSUME: dict[str, Callable[[Any], Any]] = {
    "stream": _based(_reads_stream),
    "consumes": _Consumes,
    "consumes-behind-its-own": _ConsumesBehindItsOwn,
    "consumes-below-another": lambda app: _Consumes(_PassesOn(app)),
    "replays-less": lambda app: _Replays(app, lambda body: body[:-1]),
    "replays-more": lambda app: _Replays(app, lambda body: body + b"\n"),
    "replays-nothing": lambda app: _Replays(app, lambda body: b""),
}
CONSUME_SOME: dict[str, Callable[[Any], Any]] = {
    "stream-some": _based(_reads_some_of_stream),
    "consumes-the-first": _ConsumesTheFirst,
}
CHANGE: dict[str, Callable[[Any], Any]] = {
    "same-length": lambda app: _Replays(app, lambda body: body.replace(b"4200", b"4201")),
}

SMALL = make_event("a.b", {"amount": 4200})
LARGE = make_event("a.b", {"amount": 4200, "filler": "x" * 300_000})  # arrives in pieces


@pytest.fixture(scope="module", params=["httptools", "serve"])
def http(request: pytest.FixtureRequest) -> str:
    """What parses requests: uvicorn's parser, or that of ``animica-hooks serve``."""
    http: str = request.param
    return http


@pytest.fixture(scope="module")
def database(http: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(f"middlewares-{http}") / "hooks.db"


@pytest.fixture(scope="module")
def server(database: Path, http: str) -> Iterator[Server]:
    """Serve one receiver behind each of the middlewares."""
    hooks = Hooks(
        signing_secret=SECRET,
        database_url=url(database),
        body_deadline=BODY_DEADLINE_S,
        routers=[],
    )
    routes = [
        Mount(f"/{name}", app=wrap(hooks))
        for name, wrap in {**WORK, **CONSUME, **CONSUME_SOME, **CHANGE}.items()
    ]
    with Server(Starlette(routes=routes, lifespan=hooks.lifespan), http=http) as server:
        yield server


def _post(server: Server, name: str, body: bytes, *, chunked: bool = False) -> Reply:
    request = signed(body)
    request.path = f"/{name}/"
    if chunked:
        request.without(b"content-length").headers.append((b"transfer-encoding", b"chunked"))
        middle = len(body) // 2
        request.body = b"".join(
            b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:middle], body[middle:], b"")
        )
    began = time.monotonic()
    reply = parse_reply(exchange(server.port, raw(request)))
    assert time.monotonic() - began < PATIENCE_S
    return reply


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", WORK)
def test_works(server: Server, database: Path, name: str, size: str, chunked: bool) -> None:
    """A middleware that leaves the body as it is, or gives it again, is in nobody's way."""
    filler = "x" * (300_000 if size == "large" else 1)
    body = make_event("a.b", {"filler": filler}, id=f"evt_{name}_{size}_{chunked}")
    assert 204 == _post(server, name, body, chunked=chunked).status
    assert [(body,)] == rows(
        database, "SELECT body FROM hooks_events WHERE id = ?", f"evt_{name}_{size}_{chunked}"
    )


def _is_named(reply: Reply) -> bool:
    return (500, "api_error", "body_consumed") == (
        reply.status,
        reply.error["type"],
        reply.error["code"],
    ) and "middleware" in reply.error["message"]


@pytest.mark.parametrize("name", CONSUME)
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_consumed(server: Server, name: str, body: bytes) -> None:
    """A body that a middleware has read or changed is answered 500, which says so."""
    assert _is_named(_post(server, name, body))


@pytest.mark.parametrize("name", CONSUME_SOME)
def test_consumed_in_part(server: Server, name: str) -> None:
    """A body of which a middleware has read the first piece, likewise."""
    assert _is_named(_post(server, name, LARGE))


def test_changed(server: Server) -> None:
    """A body changed to another of its length can not be told from a forged one."""
    reply = _post(server, "same-length", SMALL)
    assert (400, "invalid_signature") == (reply.status, reply.code)
    assert 204 == _post(server, "same-length", make_event("a.b")).status  # it changes no other


def test_consumed_without_a_length(server: Server) -> None:
    """Of undeclared length: the cause is named where the server knows it, and it never hangs."""
    assert _is_named(_post(server, "consumes", SMALL, chunked=True))
    assert 408 == _post(server, "consumes-behind-its-own", SMALL, chunked=True).status


def test_consumed_is_seen_in_time(server: Server) -> None:
    """Where the server knows that nothing is left, the answer does not wait for the deadline."""
    fastest = min(_timed(server, "consumes") for _ in range(5))
    slowest = max(_timed(server, "consumes-behind-its-own") for _ in range(2))
    assert fastest < BODY_DEADLINE_S <= slowest


def _timed(server: Server, name: str) -> float:
    began = time.monotonic()
    assert _is_named(_post(server, name, SMALL))
    return time.monotonic() - began
