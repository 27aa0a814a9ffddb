"""Server-sent events are decoded as the HTML standard says, however the bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animica_hooks.errors import APIResponseError
from animica_hooks.sdk import sse
from animica_hooks.sdk.sse import Decoder, Event, NamedEvent


def decoded(*pieces: bytes) -> list[Event]:
    """The events of a whole stream, its end included."""
    decoder = Decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    last = decoder.finish()
    return events if last is None else [*events, last]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one\n\n", [b" one"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"event: error\ndata: x\n\n", [NamedEvent("error", b"x")]),
        (b"data: x\nevent: error\n\n", [NamedEvent("error", b"x")]),
        (b": comment\n\ndata: x\n\n", [b"x"]),
        (b": comment\ndata: x\n\n", [b"x"]),
        (b"event: ping\n\ndata: x\n\n", [b"x"]),
        (b"id: 1\nretry: 2\nother: 3\ndata: x\n\n", [b"x"]),
        (b"\n\n\ndata: x\n\n\n\n", [b"x"]),
        (b"\xef\xbb\xbfdata: x\n\n", [b"x"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
        (b"data: \xf0\x9f\x98\x80\n\n", ["😀".encode()]),
        (b"data: [DONE]", [b"[DONE]"]),
        (b"data: x\n", [b"x"]),
        (b"", []),
    ],
)
def test_every_form_is_read(stream: bytes, events: list[Event]) -> None:
    """Line ends, comments, names, several lines of data, byte order marks: as the standard says."""
    assert events == decoded(stream)
    assert events == decoded(*[stream[i : i + 1] for i in range(len(stream))])


LINES = st.sampled_from(
    [b"data: a", b"data:", b"data: b c", b": x", b"event: e", b"", b"", b"\xef\xbb\xbfdata: z"]
)


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"]))), st.data())
def test_how_it_is_cut_makes_no_difference(
    lines: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    """Wherever the network cuts a stream, also between CR and LF, the events are the same."""
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert decoded(stream) == decoded(*pieces)


def test_events_come_as_soon_as_they_are_complete() -> None:
    """An event is given when its blank line has come, not later."""
    decoder = Decoder()

    assert [] == decoder.feed(b"data: one\n")
    assert [b"one"] == decoder.feed(b"\ndata: two")
    assert [b"two"] == decoder.feed(b"\n\n")


def test_an_event_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever a server sends."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    decoder = Decoder()
    decoder.feed(b"data: " + b"x" * 90)

    with pytest.raises(APIResponseError, match="does not end"):
        decoder.feed(b"x" * 20)
