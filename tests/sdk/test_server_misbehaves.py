"""Each misbehaviour of the test server is what it says, seen at the socket."""

from __future__ import annotations

import json
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2
import pytest
from apiserver import APIServer, Hold, Space, steps
from apiserver.answer import Event

CHAT = {"model": "anm-fast-8b", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**CHAT, "stream": True}


class Wire:
    """A connection to a space's Animica, without any HTTP client."""

    def __init__(self, space: Space) -> None:
        host, port = space.origin.removeprefix("http://").split(":")
        self._space = space
        self._socket = socket.create_connection((host, int(port)), timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, body: dict[str, Any], *, only: int | None = None) -> None:
        """Send a chat request, or only so many bytes of its body."""
        content = json.dumps(body).encode()
        path = self._space.animica.removeprefix(self._space.origin) + "/chat/completions"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._space.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + content[:only])

    def receive(self, until: bytes) -> bytes:
        """Read up to and including these bytes."""
        data = b""
        while until not in data:
            piece = self._socket.recv(65536)
            assert piece, data
            data += piece
        return data

    def rest(self) -> bytes:
        """Read to the end; a reset raises."""
        data = b""
        while piece := self._socket.recv(65536):
            data += piece
        return data


def answered(space: Space, step: steps.Step, body: dict[str, Any] = CHAT) -> httpx2.Response:
    """Ask once by a client that repeats nothing, and return the answer."""
    space.script(step)
    with httpx2.Client(follow_redirects=False) as client:
        return client.post(
            f"{space.animica}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {space.key}"},
        )


def on_the_wire(space: Space, step: steps.Step, body: dict[str, Any] = CHAT) -> bytes:
    """Ask once, and return every byte up to the end."""
    space.script(step)
    with Wire(space) as wire:
        wire.send(body)
        return wire.rest()


def data_of(response: httpx2.Response) -> list[str]:
    """Return the data lines of a stream."""
    return [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]


def test_a_script_is_followed_step_by_step(space: Space) -> None:
    """Requests meet the steps in turn, then what is always met."""
    space.script(steps.error(500), steps.normal(), steps.error(429))
    space.always(steps.error(503))

    with httpx2.Client(headers={"authorization": f"Bearer {space.key}"}) as client:
        statuses = [client.get(f"{space.animica}/models").status_code for _ in range(5)]

    assert [500, 200, 429, 503, 503] == statuses


def test_a_truncated_body_is_shorter_than_promised(space: Space) -> None:
    """Half of the promised length arrives, then the end of the connection."""
    head, _, body = on_the_wire(space, steps.truncated(0.5)).partition(b"\r\n\r\n")

    (length,) = [int(line[16:]) for line in head.split(b"\r\n") if line[:15] == b"content-length:"]
    assert length // 2 == len(body)


def test_a_broken_stream_has_no_last_chunk(space: Space) -> None:
    """The connection ends after the asked number of events, without the closing chunk."""
    data = on_the_wire(space, steps.broken(3), STREAM)

    assert 3 == data.count(b"data: ")
    assert not data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("after", [None, 3])
def test_a_reset_is_one(space: Space, after: int | None) -> None:
    """The connection is reset, before the headers or after some events."""
    space.script(steps.reset(after))

    with Wire(space) as wire:
        wire.send(STREAM)
        with pytest.raises(ConnectionResetError):
            wire.rest()

    space.wait_for(lambda: space.last.broken_off and not space.last.done)


def test_only_the_scripted_connection_is_reset(space: Space) -> None:
    """Of two connections at once, the one whose request meets the reset is reset."""
    hold = Hold()
    space.script(steps.held(hold), steps.reset())

    with Wire(space) as first, Wire(space) as second:
        first.send(CHAT)
        assert hold.reached.wait(20)
        second.send(CHAT)
        with pytest.raises(ConnectionResetError):
            second.rest()
        hold.release()
        assert b"You said: Hello" in first.receive(b"system_fingerprint")

    held, reset = sorted(space.requests, key=lambda sent: sent.arrived)
    assert held.connection != reset.connection


def test_hanging_up_sends_nothing(space: Space) -> None:
    """The connection ends in good order without a byte."""
    assert b"" == on_the_wire(space, steps.hung_up())


def test_a_cut_stream_ends_in_good_order(space: Space) -> None:
    """A cut stream is whole as HTTP, but has no finish reason and no end mark."""
    response = answered(space, steps.cut(3), STREAM)

    chunks = [json.loads(data) for data in data_of(response)]
    assert [None] * 3 == [chunk["choices"][0]["finish_reason"] for chunk in chunks]


def test_a_failing_stream_says_so(space: Space) -> None:
    """After some events comes the provider's error, and no more."""
    response = answered(space, steps.failing(2, 529, "Overloaded"), STREAM)

    *before, last = data_of(response)
    assert (200, 2) == (response.status_code, len(before))
    assert "Overloaded" == json.loads(last)["error"]["message"]


def test_a_hold_keeps_the_answer_back(space: Space) -> None:
    """Nothing is sent before the release, and all of it after."""
    hold = Hold()
    space.script(steps.held(hold))

    with Wire(space) as wire:
        wire.send({**CHAT})
        assert hold.reached.wait(20)
        wire._socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            wire._socket.recv(1)
        wire._socket.settimeout(20)
        hold.release()
        assert b"200 OK" in wire.receive(b"\r\n\r\n")


@pytest.mark.parametrize("after", [0, 3])
def test_a_hold_in_a_stream_lets_the_parts_before_it_pass(space: Space, after: int) -> None:
    """The head and some events arrive before the release, the others after it."""
    hold = Hold()
    space.script(steps.held(hold, after=after))

    with Wire(space) as wire:
        wire.send(STREAM)
        assert hold.reached.wait(20)
        before = wire.receive(b"\r\n\r\n" if after == 0 else b'" said"')
        hold.release()
        after_it = wire.receive(b"[DONE]")

    assert after == before.count(b"data: ")
    assert 7 - after == after_it.count(b"data: ")


def test_a_departed_client_is_seen_at_a_hold(space: Space) -> None:
    """A client that leaves while the server waits is recorded as broken off."""
    hold = Hold()
    space.script(steps.held(hold))

    with Wire(space) as wire:
        wire.send(CHAT)
        assert hold.reached.wait(20)

    space.wait_for(lambda: bool(space.requests) and space.last.broken_off)
    space.wait_for(lambda: space.open_connections == 0)


def test_a_client_that_leaves_in_mid_body_is_seen(space: Space) -> None:
    """Half a request is recorded as such, and harms nobody."""
    with Wire(space) as wire:
        wire.send(CHAT, only=10)

    space.wait_for(lambda: bool(space.requests) and space.last.broken_off)
    assert (10, 0) == (len(space.last.body), space.executed)
    assert 200 == answered(space, steps.normal()).status_code


def test_a_stalled_upload_is_not_read(space: Space) -> None:
    """A large body is not taken before the release, so that its sender must wait."""
    hold = Hold()
    space.script(steps.stalled_upload(hold))
    large = {**CHAT, "padding": "x" * 30_000_000}

    url, timeout = f"{space.animica}/chat/completions", httpx2.Timeout(20, write=0.2)
    with pytest.raises(httpx2.WriteTimeout):
        httpx2.post(url, json=large, timeout=timeout)

    hold.release()
    space.wait_for(lambda: space.last.broken_off)


@pytest.mark.parametrize(
    ("form", "header", "value"),
    [
        ("seconds", "retry-after", "2"),
        ("milliseconds", "retry-after-ms", "2000"),
        ("negative", "retry-after", "-1"),
        ("huge", "retry-after", "1e9"),
        ("junk", "retry-after", "soon"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_waiting_is_asked_in_each_form(
    space: Space, status: int, form: steps.RetryAfter, header: str, value: str
) -> None:
    """An error asks to wait in seconds, milliseconds, or with a value that makes no sense."""
    response = answered(space, steps.error(status, headers=steps.retry_after(form, 2)))

    assert (status, value) == (response.status_code, response.headers[header])


@pytest.mark.parametrize(("form", "ahead"), [("date", 60), ("past date", -3600)])
def test_waiting_is_asked_as_a_date(space: Space, form: steps.RetryAfter, ahead: int) -> None:
    """An error asks to wait until a date, or names one that is past."""
    response = answered(space, steps.error(429, headers=steps.retry_after(form, 60)))

    moment = parsedate_to_datetime(response.headers["retry-after"]).timestamp()
    assert abs(moment - time.time() - ahead) < 20


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_points_away(space: Space, api_server: APIServer, status: int) -> None:
    """A redirect leads to another origin, where a request would be recorded as that origin's."""
    target = space.url("animica", api_server.other_origin) + "/models"
    response = answered(space, steps.redirected(status, target))

    followed = httpx2.get(
        response.headers["location"], headers={"authorization": f"Bearer {space.key}"}
    )

    assert (status, 200) == (response.status_code, followed.status_code)
    assert [space.origin, api_server.other_origin] == [sent.origin for sent in space.requests]
    assert 0 == space.executed


def test_tls_is_spoken_too(space: Space, api_server: APIServer) -> None:
    """The same space is at an https origin, with a certificate of the server's own authority."""
    context = ssl.create_default_context()
    api_server.authority.configure_trust(context)

    with httpx2.Client(verify=context) as client:
        answer = client.get(
            space.url("animica", space.secure_origin) + "/models",
            headers={"authorization": f"Bearer {space.key}"},
        )

    assert (200, space.secure_origin) == (answer.status_code, space.last.origin)


def test_an_edited_answer_has_the_change(space: Space) -> None:
    """An answer's JSON is sent as a test has changed it."""

    def oddities(payload: dict[str, Any]) -> None:
        payload.update(choices=None, created=1.5)
        del payload["id"]

    payload = answered(space, steps.edited(oddities)).json()

    assert (None, 1.5, False) == (payload["choices"], payload["created"], "id" in payload)


def test_edited_events_are_streamed(space: Space) -> None:
    """A stream's events are sent as a test has changed them, with names and lines of data."""
    odd = Event('{"a":\n1}', "odd")

    response = answered(space, steps.edited_events(lambda events: [odd, *events[:1]]), STREAM)

    assert response.text.startswith('event: odd\ndata: {"a":\ndata: 1}\n\ndata: {')


def test_a_reply_is_sent_as_given(space: Space) -> None:
    """Broken JSON, another content type, an integer error code: a test has what it asks for."""
    broken = answered(space, steps.reply(b'{"id": ', content_type="text/html"))
    coded = answered(space, steps.reply({"error": {"code": 402}}, status=402))
    bare = answered(space, steps.reply(b"", status=204, content_type=None))

    assert (b'{"id": ', "text/html") == (broken.content, broken.headers["content-type"])
    assert broken.headers["x-request-id"].startswith("req_")
    assert (402, 402) == (coded.status_code, coded.json()["error"]["code"])
    assert (204, False) == (bare.status_code, "content-type" in bare.headers)


def test_streamed_parts_are_sent_as_given(space: Space) -> None:
    """Comments, other line ends and what is no event at all reach the client untouched."""
    parts = [": a comment\r\n\r\n", "data: {}\r\r", "nonsense"]

    assert "".join(parts) == answered(space, steps.streamed(*parts)).text


def test_chunks_have_the_asked_size(space: Space) -> None:
    """Every chunk of the body has so many bytes, the last one what is left."""
    space.script(steps.rechunked(7))

    with Wire(space) as wire:
        wire.send(CHAT)
        _, _, body = wire.receive(b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")

    sizes = [int(line, 16) for line in body.split(b"\r\n")[::2] if line]
    assert {7} == set(sizes[:-2])
    assert 0 == sizes[-1]


def test_odd_chunks_are_chunks(space: Space) -> None:
    """Chunks have extensions, padded sizes and a trailer."""
    data = on_the_wire(space, steps.oddly_chunked())

    assert b"\r\n\r\n0" in data
    assert b';note="a;b"\r\n{' in data
    assert data.endswith(b"\r\n0;last\r\nx-trailer: 1\r\n\r\n")


def test_informational_answers_come_first(space: Space) -> None:
    """100 and 103 precede the answer."""
    space.script(steps.informed(100, 103))

    with Wire(space) as wire:
        wire.send(CHAT)
        data = wire.receive(b"HTTP/1.1 200 OK")

    assert data.startswith(b"HTTP/1.1 100 ")
    assert b"\r\n\r\nHTTP/1.1 103 " in data


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize(("accepted", "encoding"), [("gzip, br", "gzip"), ("identity", None)])
def test_compression_is_for_those_who_accept_it(
    space: Space, body: dict[str, Any], accepted: str, encoding: str | None
) -> None:
    """A client that takes gzip gets it, and reads the same as one that does not."""
    space.script(steps.compressed())
    headers = {"authorization": f"Bearer {space.key}", "accept-encoding": accepted}

    response = httpx2.post(f"{space.animica}/chat/completions", json=body, headers=headers)

    assert encoding == response.headers.get("content-encoding")
    assert "Hello" in response.text


def test_raw_bytes_are_all_that_is_sent(space: Space) -> None:
    """What is no HTTP at all is sent as it is."""
    assert b"SSH-2.0-x\r\n" == on_the_wire(space, steps.raw(b"SSH-2.0-x\r\n"))


def test_idle_connections_can_be_dropped(space: Space) -> None:
    """A kept connection is closed at the test's word, so that the next request needs another."""
    with httpx2.Client(headers={"authorization": f"Bearer {space.key}"}) as client:
        client.get(f"{space.animica}/models")
        assert 1 == space.open_connections
        space.drop_connections()
        client.get(f"{space.animica}/models")

    first, second = space.requests
    assert first.connection != second.connection


def test_a_reply_of_the_tests_own_is_streamed_in_pieces(space: Space) -> None:
    """What the model says can be set, for streams of any length."""
    space.reply = "word " * 1000

    response = answered(space, steps.normal(), STREAM)

    # A role, a thousand words, the space at the end, the finish reason, and the end mark.
    assert 1004 == len(data_of(response))
