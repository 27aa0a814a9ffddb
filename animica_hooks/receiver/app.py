"""The ASGI application that receives: verify, then commit, then answer.

The order of checks is part of the contract: method, encoding, the signature header's grammar and
clock, the declared length, the body, the HMAC, and only then whether the database can take it.
Unknown endpoints run the same checks against a secret that nobody has.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import msgspec
from starlette.types import Receive, Scope, Send

from animica_hooks.core.event import (
    CREDENTIALS,
    Event,
    check_identity,
    decode_payload,
    hash_body,
    pack_headers,
)
from animica_hooks.core.routing import ROOT_ENDPOINT, Route
from animica_hooks.core.signature import HEADER, SignatureHeader, Verifier, parse
from animica_hooks.errors import (
    MalformedEvent,
    SignatureError,
    SignatureReason,
    StoreError,
    StoreRefused,
)
from animica_hooks.receiver import answers
from animica_hooks.receiver.answers import Answer
from animica_hooks.receiver.body import BodyReader, Disconnected, Refused
from animica_hooks.store.committer import Committer
from animica_hooks.store.records import NewEvent, NewQuarantined, Receipt, new_job
from animica_hooks.telemetry import Rejected, Telemetry

_SIGNATURE = HEADER.lower().encode()
_NOTED = frozenset({_SIGNATURE, b"content-length", b"content-encoding"}) | CREDENTIALS
_UNWELCOME = (Refused, SignatureError, StoreError)


class _Head(msgspec.Struct, gc=False):
    """What is known of a delivery before its body is read."""

    verifier: Verifier
    signature: SignatureHeader
    is_timely: bool
    declared: int | None  # the body's length
    headers: Iterable[tuple[bytes, bytes]]
    credentials: bool  # there are some among the headers

    def check_timely(self) -> None:
        if not self.is_timely:
            raise SignatureError(SignatureReason.TIMESTAMP)


class Receiver:
    """Receives deliveries at the root endpoint.

    Args:
        verifier: of the root endpoint's secrets.
        route: the handlers that an event of (endpoint, type) goes to.
        not_ready: the reasons why this process should be sent nothing now.
    """

    def __init__(
        self,
        committer: Committer,
        telemetry: Telemetry,
        *,
        verifier: Verifier,
        route: Callable[[str, str], Route],
        not_ready: Callable[[], list[str]],
        max_body: int,
        body_deadline: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._committer = committer
        self._telemetry = telemetry
        self._verifier = verifier
        self._nobody = Verifier([secrets.token_bytes(32)], tolerance_s=verifier.tolerance_s)
        self._route = route
        self._not_ready = not_ready
        self._max_body = max_body
        self._bodies = BodyReader(most=max_body, deadline=body_deadline)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _relative(scope["path"], scope.get("root_path", ""))
        if path.startswith("/health") and (health := self._health(path, scope)):
            await health.send(send)
            return
        try:
            head = self._check_head(path, scope["method"], scope["headers"])
            try:
                body = await self._bodies.read(receive, declared=head.declared)
            except Refused:
                head.check_timely()
                raise
            await self._committer.deliver(self._verify(head, body))
        except Disconnected:
            self._reject("disconnected", "disconnected")
        except _UNWELCOME as error:
            await self._refusal(error).send(send)
        else:
            await answers.ACCEPTED.send(send)

    def take(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        answer: Callable[[Answer], None],
    ) -> bool:
        """Receive a request that is all there: as a call does, but without a task to wait in.

        Args:
            answer: called later, once.

        Returns:
            whether it is taken; if not, it has to be called for.
        """
        path = _relative(path)
        if path.startswith("/health"):
            return False
        try:
            head = self._check_head(path, method, headers)
            if head.declared is None:
                return False
            self._committer.submit(self._verify(head, body), partial(self._answer, answer))
        except _UNWELCOME as error:
            asyncio.get_running_loop().call_soon(answer, self._refusal(error))
        return True

    def _answer(self, answer: Callable[[Answer], None], ended: Receipt | StoreError) -> None:
        answer(self._refusal(ended) if isinstance(ended, StoreError) else answers.ACCEPTED)

    def _refusal(self, error: BaseException) -> Answer:
        """Return the answer to a delivery that is not taken, and count it."""
        if isinstance(error, Refused):
            self._reject(error.answer.code, error.answer.code)
            return error.answer
        if isinstance(error, SignatureError):
            self._reject("invalid_signature", error.reason)
            # Stale, mismatched and sent elsewhere: all have read the body, and answer alike.
            read = error.reason in (SignatureReason.TIMESTAMP, SignatureReason.MISMATCH)
            return answers.INVALID_SIGNATURE if read else answers.INVALID_SIGNATURE_UNREAD
        self._reject("unavailable", "refused" if isinstance(error, StoreRefused) else "unavailable")
        return answers.UNAVAILABLE

    def _check_head(self, path: str, method: str, headers: Iterable[tuple[bytes, bytes]]) -> _Head:
        """Check what is known before the body is read; of the clock only note what it says."""
        if method != "POST":
            raise Refused(answers.METHOD_NOT_ALLOWED)
        signature, declared, credentials = self._check_headers(headers)
        verifier = self._nobody if path else self._verifier
        timely = verifier.is_timely(signature, now=self._clock())
        head = _Head(verifier, signature, timely, declared, headers, credentials)
        if declared is not None and declared > self._max_body:
            head.check_timely()
            raise Refused(answers.PAYLOAD_TOO_LARGE)
        return head

    def _verify(self, head: _Head, body: bytes) -> NewEvent | NewQuarantined:
        """Return a delivery that is authentic, for the store."""
        secret_id = head.verifier.identify(head.signature, body)
        # Only now, so that nobody can tell a stale timestamp from a wrong secret.
        head.check_timely()
        if secret_id is None:
            raise SignatureError(SignatureReason.MISMATCH)
        raw_headers = pack_headers(head.headers, credentials=head.credentials)
        return self._delivery(raw_headers, body, secret_id)

    def _check_headers(
        self, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[SignatureHeader, int | None, bool]:
        """Look at each header once; return what is known before the body is read.

        Returns:
            The signature, the declared length, and whether there are credentials.
        """
        signature: bytes | None = None
        declared: bytes | None = None
        encoding = b""
        credentials = False
        for name, value in headers:
            if name not in _NOTED:
                continue
            if name == _SIGNATURE:
                # Two headers are of no grammar.
                signature = value if signature is None else b"?"
            elif name == b"content-length":
                declared = value
            elif name == b"content-encoding":
                encoding += value.lower()  # of several, one that is none hides no other
            else:
                credentials = True
        if encoding not in (b"", b"identity"):
            raise Refused(answers.UNSUPPORTED_ENCODING)
        length = None
        if declared is not None and declared.isdigit():
            length = int(declared[:20])  # longer ones are too large as well
        return parse(signature or b""), length, credentials

    def _delivery(
        self, raw_headers: bytes, body: bytes, secret_id: str
    ) -> NewEvent | NewQuarantined:
        now = self._clock()
        received_at = int(now * 1_000_000)
        try:
            payload = decode_payload(body)
            id, type = check_identity(payload)
        except MalformedEvent as error:
            return NewQuarantined(
                endpoint=ROOT_ENDPOINT,
                body=body,
                body_hash=hash_body(body),
                raw_headers=raw_headers,
                received_at=received_at,
                reason=str(error),
                secret_id=secret_id,
            )
        event: Event = Event(
            id=id,
            type=type,
            body=body,
            endpoint=ROOT_ENDPOINT,
            received_at=datetime.fromtimestamp(now, UTC),
            raw_headers=raw_headers,
        )
        plain, others = self._route(ROOT_ENDPOINT, type)
        if not others:
            return NewEvent(event, received_at, plain, secret_id)
        jobs = tuple(new_job(id, handler, event) for id, handler in others)
        return NewEvent(event, received_at, plain, secret_id, jobs)

    def _health(self, path: str, scope: Scope) -> Answer | None:
        if path not in ("/health", "/health/live", "/health/ready"):
            return None
        if scope["method"] not in ("GET", "HEAD"):
            return answers.READ_ONLY
        return answers.LIVE if path == "/health/live" else answers.ready(self._not_ready())

    def _reject(self, code: str, reason: str) -> None:
        self._telemetry(Rejected(code, reason))


def _relative(path: str, root: str = "") -> str:
    """Return a path below where the app is mounted, without slashes at its end.

    The scope's path decides, never the URL: a malformed Host header changes nothing.
    """
    if path == "/":
        return ""
    root = root.rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path.rstrip("/")
