"""The four providers: what each route answers, who may ask, and how each words its errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from apiserver import chat, messages
from apiserver.answer import Answer, Event, Refusal

if TYPE_CHECKING:
    from apiserver.space import Recorded, Space

# A key with this in it is refused by every provider.
REVOKED = "revoked"
MINUTE = 60
DAY = 24 * 60 * 60


class Quota(NamedTuple):
    """How many requests of a kind are answered in a span of seconds."""

    name: str
    requests: int
    seconds: int


class Provider:
    """What the providers have in common."""

    name: ClassVar[str]
    # The path below the provider's own prefix at which its clients' base URL ends.
    base: ClassVar[str] = "/v1"
    request_id_header: ClassVar[str] = "x-request-id"

    def admit(self, request: Recorded) -> None:
        """Refuse a request without a key, or with a wrong one."""
        key = bearer(request)
        if not key:
            raise Refusal(401, "You didn't provide an API key.", code="missing_api_key")
        if REVOKED in key:
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")

    def quota(self, request: Recorded, space: Space) -> Quota:
        """Return the quota that a request counts against."""
        return Quota("requests", space.requests_per_minute, MINUTE)

    def limit_headers(self, quota: Quota, left: int, reset: float) -> tuple[tuple[str, str], ...]:
        """Return the rate-limit headers, as OpenAI has them.

        https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
        """
        tokens = quota.requests * 1000
        return (
            ("x-ratelimit-limit-requests", str(quota.requests)),
            ("x-ratelimit-remaining-requests", str(left)),
            ("x-ratelimit-reset-requests", duration(reset)),
            ("x-ratelimit-limit-tokens", str(tokens)),
            ("x-ratelimit-remaining-tokens", str(tokens - (quota.requests - left) * 10)),
            ("x-ratelimit-reset-tokens", duration(reset)),
        )

    def respond(self, request: Recorded, space: Space) -> Answer:
        """Return what the route answers."""
        raise NotImplementedError

    def refuse(self, refusal: Refusal, request_id: str) -> Answer:
        """Word an error as OpenAI does.

        https://platform.openai.com/docs/guides/error-codes
        """
        error = {
            "message": refusal.message,
            "type": refusal.type or self.error_type(refusal.status),
            "param": refusal.param,
            "code": refusal.code,
        }
        return Answer.of({"error": error}, status=refusal.status).with_headers(*refusal.headers)

    def error_type(self, status: int) -> str:
        """Return the type of a status's errors: those that the Animica document lists."""
        return {
            401: "authentication_error",
            402: "insufficient_quota",
            403: "permission_error",
            429: "rate_limit_error",
        }.get(status, "api_error" if status >= 500 else "invalid_request_error")

    def error_event(self, refusal: Refusal, request_id: str) -> Event:
        """Return the event with which a stream that has begun fails.

        OpenAI-compatible servers send the error object as data without an event name:
        https://docs.anannas.ai/API/Streaming
        """
        return Event(self.refuse(refusal, request_id).body.decode())


def one_model(request: Recorded, base: str, models: Sequence[str]) -> Answer:
    """Tell of one model.

    https://platform.openai.com/docs/api-reference/models/retrieve
    """
    only(request, "GET")
    name = request.path.removeprefix(f"{base}/models/")
    if name not in models:
        message = f"The model '{name}' does not exist."
        raise Refusal(404, message, code="model_not_found", param="model")
    return Answer.of(chat.model_object(name, name.partition("/")[0]))


def bearer(request: Recorded) -> str:
    """Return the bearer token, or ""."""
    scheme, _, key = request.header("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def duration(seconds: float) -> str:
    """Write a duration as the rate-limit headers do: "6m0s", "1.5s", "20ms"."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


def only(request: Recorded, method: str) -> None:
    """Refuse another method."""
    if request.method != method:
        raise Refusal(405, f"Not allowed to {request.method} on {request.path}.", code="method")


def unknown_route(request: Recorded) -> Refusal:
    """Return the refusal of a path that does not exist."""
    return Refusal(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")


class Animica(Provider):
    """Animica: the document of the animica-ai package."""

    name = "animica"
    MODELS = (
        "anm-fast-8b",
        "anm-code-7b",
        "anm-pro-70b",
        "anm-bittensor-router",
        "anm-embed",
        "anm-worker-small",
        "anm-worker-code",
    )

    def admit(self, request: Recorded) -> None:
        super().admit(request)
        if not bearer(request).startswith(("anm_live_", "anm_test_")):
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")

    def respond(self, request: Recorded, space: Space) -> Answer:
        if request.path == "/v1/models":
            only(request, "GET")
            data = [chat.model_object(model, "animica") for model in self.MODELS]
            return Answer.of({"object": "list", "data": data})
        if request.path.startswith("/v1/models/"):
            return one_model(request, "/v1", self.MODELS)
        if request.path == "/v1/usage":
            only(request, "GET")
            # A thousandth of a dollar for every answer.
            return Answer.of({"totalSpentUsd": space.executed / 1000, "count": space.executed})
        body = openai_body(request, "/v1")
        if body["model"] not in self.MODELS:
            message = f"The model '{body['model']}' does not exist."
            raise Refusal(404, message, code="model_not_found", param="model")
        return openai_answer(request, body, space)


class Andy(Provider):
    """Andy API: a pool of hosts. Chat needs no key, but then 10 requests a minute are all."""

    name = "andy"
    base = "/api/andy/v1"
    MODELS = ("sweaterdog/andy-4:latest", "nomic-embed-text:latest")
    HOSTS: ClassVar[tuple[dict[str, Any], ...]] = (
        {"host_id": "host-1", "status": "active", "load": 0.25, "models": [MODELS[0]]},
        {"host_id": "host-2", "status": "inactive", "load": 0.0, "models": list(MODELS)},
    )

    def admit(self, request: Recorded) -> None:
        if bearer(request) or not request.path.endswith("/chat/completions"):
            super().admit(request)

    def quota(self, request: Recorded, space: Space) -> Quota:
        if not bearer(request):
            return Quota("keyless", 10, MINUTE)
        if request.path.endswith("/chat/completions"):
            return super().quota(request, space)
        return Quota("others", 1000, DAY)

    def respond(self, request: Recorded, space: Space) -> Answer:
        if request.path == "/api/andy/pool_status":
            only(request, "GET")
            return Answer.of(self.pool_status())
        if request.path == "/api/andy/v1/models":
            # Its document shows GET in one place and POST in another.
            data = [chat.model_object(model, "andy") for model in self.MODELS]
            return Answer.of({"object": "list", "data": data})
        if request.path.startswith("/api/andy/v1/models/"):
            return one_model(request, "/api/andy/v1", self.MODELS)
        body = openai_body(request, "/api/andy/v1", without=("/completions",))
        return openai_answer(request, body, space)

    def pool_status(self) -> dict[str, Any]:
        """Return the pool's state, with the fields that its hosts' and users' clients read."""
        active = [host for host in self.HOSTS if host["status"] == "active"]
        models = [
            {"name": model, "available_hosts": sum(model in host["models"] for host in active)}
            for model in self.MODELS
        ]
        return {
            "total_hosts": len(self.HOSTS),
            "active_hosts": len(active),
            "total_models": len(self.MODELS),
            "hosts": list(self.HOSTS),
            "models": models,
        }


class Anannas(Provider):
    """Anannas: models of many providers, named provider/model, paid with credits.

    https://docs.anannas.ai/API/errors
    """

    name = "anannas"
    MODELS = (
        "openai/gpt-5-mini",
        "openai/gpt-3.5-turbo",
        "anthropic/claude-3-sonnet",
        "anthropic/claude-3-opus",
    )

    def respond(self, request: Recorded, space: Space) -> Answer:
        if request.path == "/v1/models":
            only(request, "GET")
            data = [chat.model_object(model, model.partition("/")[0]) for model in self.MODELS]
            return Answer.of({"object": "list", "data": data})
        if request.path.startswith("/v1/models/"):
            return one_model(request, "/v1", self.MODELS)
        body = openai_body(request, "/v1", without=("/completions", "/embeddings"))
        if body["model"] not in self.MODELS:
            raise Refusal(400, f"Invalid model: {body['model']}")
        if not space.has_credits:
            raise Refusal(402, "Insufficient credits")
        return openai_answer(request, body, space)

    def refuse(self, refusal: Refusal, request_id: str) -> Answer:
        """Word an error with its message and type alone, as its document shows them."""
        error: dict[str, Any] = {
            "message": refusal.message,
            "type": refusal.type or self.error_type(refusal.status),
        }
        if refusal.code is not None:
            error["code"] = refusal.code
        return Answer.of({"error": error}, status=refusal.status).with_headers(*refusal.headers)

    def error_type(self, status: int) -> str:
        return {
            402: "insufficient_quota_error",
            403: "content_filter_error",
            408: "timeout_error",
            502: "provider_error",
            503: "provider_error",
        }.get(status, super().error_type(status))


class Anthropic(Provider):
    """Anthropic: messages, the legacy text completions, and counting."""

    name = "anthropic"
    base = ""
    request_id_header = "request-id"

    def admit(self, request: Recorded) -> None:
        """Refuse a request without its key or its version.

        The key comes in x-api-key, as documented, or as a bearer token, as the anthropic package
        2.12 sends it: https://docs.anthropic.com/en/api/overview, .../api/versioning.
        """
        key = request.header("x-api-key", "") or bearer(request)
        if not key or REVOKED in key:
            raise Refusal(401, "invalid x-api-key" if key else "x-api-key header is required")
        if not request.header("anthropic-version", ""):
            raise Refusal(400, "anthropic-version: header is required")

    def limit_headers(self, quota: Quota, left: int, reset: float) -> tuple[tuple[str, str], ...]:
        """Return the rate-limit headers.

        https://docs.anthropic.com/en/api/rate-limits#response-headers
        """
        moment = datetime.now(UTC) + timedelta(seconds=reset)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        tokens = quota.requests * 1000
        return (
            ("anthropic-ratelimit-requests-limit", str(quota.requests)),
            ("anthropic-ratelimit-requests-remaining", str(left)),
            ("anthropic-ratelimit-requests-reset", stamp),
            ("anthropic-ratelimit-tokens-limit", str(tokens)),
            ("anthropic-ratelimit-tokens-remaining", str(tokens - (quota.requests - left) * 10)),
            ("anthropic-ratelimit-tokens-reset", stamp),
        )

    def respond(self, request: Recorded, space: Space) -> Answer:
        if request.path not in ("/v1/messages", "/v1/messages/count_tokens", "/v1/complete"):
            raise Refusal(404, "Not Found")
        only(request, "POST")
        body = json_body(request)
        if request.path == "/v1/messages/count_tokens":
            return messages.count_tokens(body)
        if request.path == "/v1/complete":
            identity = space.identity("compl_")
            return messages.complete(body, identity=identity, reply=space.reply)
        return messages.create(body, identity=space.identity("msg_"), reply=space.reply)

    def refuse(self, refusal: Refusal, request_id: str) -> Answer:
        """Word an error as https://docs.anthropic.com/en/api/errors shows."""
        error = {
            "type": refusal.type or self.error_type(refusal.status),
            "message": refusal.message,
        }
        payload = {"type": "error", "error": error, "request_id": request_id}
        return Answer.of(payload, status=refusal.status).with_headers(*refusal.headers)

    def error_type(self, status: int) -> str:
        return {
            401: "authentication_error",
            402: "billing_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            504: "timeout_error",
            529: "overloaded_error",
        }.get(status, "api_error" if status >= 500 else "invalid_request_error")

    def error_event(self, refusal: Refusal, request_id: str) -> Event:
        """Return the stream's error event.

        https://docs.anthropic.com/en/api/messages-streaming#error-events
        """
        return Event(self.refuse(refusal, request_id).body.decode(), "error")


def json_body(request: Recorded) -> dict[str, Any]:
    """Return the request's JSON object, or refuse it."""
    if not request.header("content-type", "").startswith("application/json"):
        raise Refusal(415, "Content-Type must be application/json")
    try:
        body = request.json
    except ValueError:
        raise Refusal(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object.")
    return body


def openai_body(request: Recorded, base: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the body of one of the OpenAI-compatible POST routes."""
    route = request.path.removeprefix(base)
    if route not in ("/chat/completions", "/completions", "/embeddings") or route in without:
        raise unknown_route(request)
    only(request, "POST")
    body = json_body(request)
    chat.require(body, model=str)
    return body


def openai_answer(request: Recorded, body: dict[str, Any], space: Space) -> Answer:
    """Answer one of the OpenAI-compatible POST routes."""
    created = int(time.time())
    if request.path.endswith("/embeddings"):
        return chat.embeddings(body)
    if request.path.endswith("/chat/completions"):
        identity = space.identity("chatcmpl-")
        return chat.chat(body, identity=identity, created=created, reply=space.reply)
    identity = space.identity("cmpl-")
    return chat.completion(body, identity=identity, created=created, reply=space.reply)


PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (Animica(), Andy(), Anannas(), Anthropic())
}
