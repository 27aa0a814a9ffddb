"""Where the receiver is found, in whatever it is mounted; it never answers with a redirect."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from receiving import Server, count, exchange, parse_reply, raw, signed
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router

from animica_hooks import ConfigurationError, Hooks


def _standalone(hooks: Hooks) -> Any:
    return hooks


def _routes(hooks: Hooks) -> Any:
    return Starlette(routes=hooks.routes("/hooks"), lifespan=hooks.lifespan)


def _mount(hooks: Hooks) -> Any:
    app = Starlette(lifespan=hooks.lifespan)
    hooks.mount(app, "/hooks/")
    return app


def _fastapi(hooks: Hooks) -> Any:
    app = FastAPI(lifespan=hooks.lifespan)
    hooks.mount(app, "/hooks")
    return app


def _nested(hooks: Hooks) -> Any:
    inner = Starlette(routes=[Mount("/v1", routes=hooks.routes("/hooks"))])
    return Starlette(routes=[Mount("/api", app=inner)], lifespan=hooks.lifespan)


def _nested_fastapi(hooks: Hooks) -> Any:
    app, inner = FastAPI(lifespan=hooks.lifespan), FastAPI()
    hooks.mount(inner, "/hooks")
    app.mount("/api/v1", inner)
    return app


def _host(hooks: Hooks) -> Any:
    routes = Router(routes=hooks.routes("/hooks"))
    return Starlette(routes=[Host("hooks.test", app=routes)], lifespan=hooks.lifespan)


def _at_the_root(hooks: Hooks) -> Any:
    return Starlette(routes=hooks.routes("/"), lifespan=hooks.lifespan)


def _beside_others(hooks: Hooks) -> Any:
    def other(request: Request) -> Response:
        return PlainTextResponse("other", 418)

    return Starlette(
        routes=[
            Route("/hooks/other", other, methods=["POST"]),
            *hooks.routes("/hooks"),
            Route("/{rest:path}", other, methods=["POST"]),
        ],
        lifespan=hooks.lifespan,
    )


# What makes the app, the server's root_path, and where the receiver is then.
MOUNTED: dict[str, tuple[Callable[[Hooks], Any], str, str]] = {
    "standalone": (_standalone, "", ""),
    "standalone below a root_path": (_standalone, "/proxy/hooks", ""),
    "hooks.routes": (_routes, "", "/hooks"),
    "hooks.routes below a root_path": (_routes, "/proxy", "/hooks"),
    "hooks.mount": (_mount, "", "/hooks"),
    "hooks.mount in FastAPI": (_fastapi, "", "/hooks"),
    "hooks.mount in FastAPI below a root_path": (_fastapi, "/proxy", "/hooks"),
    "nested Mount": (_nested, "", "/api/v1/hooks"),
    "nested FastAPI": (_nested_fastapi, "", "/api/v1/hooks"),
    "nested FastAPI below a root_path": (_nested_fastapi, "/proxy", "/api/v1/hooks"),
    "Host": (_host, "", "/hooks"),
    "at the root": (_at_the_root, "", ""),
    "beside other routes": (_beside_others, "", "/hooks"),
}
# Below the receiver: what is found there.
TAKEN = ["/", "//", "?x=1", "/?x=/y", "%2F", "/#x"]
UNKNOWN = ["/x", "/..", "/%2e%2e", "/../x", "/%2e%2e/hooks", "/./", "//x", "/health/x", "/%00"]


def _post(server: Server, path: str, method: str = "POST") -> int:
    request = signed()
    request.method, request.path = method, path
    return parse_reply(exchange(server.port, raw(request))).status


@pytest.mark.parametrize("how", MOUNTED)
def test_paths(hooks: Hooks, database: Path, how: str) -> None:
    """However it is mounted, with or without a slash at the end; all else is unknown to it."""
    make, root_path, path = MOUNTED[how]
    with Server(make(hooks), root_path=root_path) as server:
        taken = [path or "/", *(path + below for below in TAKEN if path or below[0] == "/")]
        assert dict.fromkeys(taken, 204) == {path: _post(server, path) for path in taken}
        assert len(taken) == count(database, "hooks_events")
        unknown = [path + below for below in UNKNOWN]
        assert dict.fromkeys(unknown, 400) == {path: _post(server, path) for path in unknown}
        for method in ("GET", "HEAD", "OPTIONS"):
            assert 405 == _post(server, path or "/", method)
        assert 200 == _post(server, f"{path}/health/live", "GET")
        assert len(taken) == count(database, "hooks_events")


@pytest.mark.parametrize("how", ["hooks.routes", "hooks.mount", "hooks.mount in FastAPI", "Host"])
def test_paths_beside_it(hooks: Hooks, database: Path, how: str) -> None:
    """A path that only looks like the receiver's is the app's own, and no redirect either."""
    with Server(MOUNTED[how][0](hooks)) as server:
        for path in ("/hooksx", "/HOOKS", "//hooks", "/hook", "/hooks;x", "/"):
            assert 404 == _post(server, path)
    assert 0 == count(database, "hooks_events")


def test_other_routes_keep_theirs(hooks: Hooks) -> None:
    """Routes of the app before and after the receiver's are reached as ever."""
    with Server(_beside_others(hooks)) as server:
        for path in ("/hooks/other", "/elsewhere", "/hooksx"):
            assert 418 == _post(server, path)


def test_absolute_target(hooks: Hooks) -> None:
    """A request through a proxy names the whole URL; its path decides."""
    with Server(_routes(hooks)) as server:
        assert 204 == _post(server, "http://elsewhere.test/hooks")


def test_paths_would_show_a_redirect(hooks: Hooks) -> None:
    """The tests above fail for Starlette's own Mount, which answers its exact path with 307."""
    app = Starlette(routes=[Mount("/hooks", app=hooks)], lifespan=hooks.lifespan)
    with Server(app) as server:
        assert [307, 204] == [_post(server, path) for path in ("/hooks", "/hooks/")]


def test_mount_knows_its_frameworks(hooks: Hooks) -> None:
    """Mounting in what is neither Starlette nor FastAPI says what to do instead."""
    with pytest.raises(ConfigurationError, match="ASGI application"):
        hooks.mount(object(), "/hooks")


@pytest.mark.parametrize("path", ["hooks", "hooks/"])
def test_mount_wants_a_path(hooks: Hooks, path: str) -> None:
    """A path that does not begin with a slash would match nothing."""
    with pytest.raises(ConfigurationError, match="must begin with '/'"):
        hooks.mount(Starlette(), path)
