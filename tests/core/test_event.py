"""The envelope: which JSON is taken, what of it makes an event, and how an event behaves."""

import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cost import STILL_LINEAR, growth
from hypothesis import example, given
from hypothesis import strategies as st

from animica_hooks import Event
from animica_hooks.core.event import (
    MAX_DEPTH,
    MAX_ID_LENGTH,
    MAX_TYPE_BYTES,
    check_id,
    check_identity,
    check_type,
    decode_payload,
    pack_headers,
    parse_created,
)
from animica_hooks.errors import MalformedEvent

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
BODY = b'{"id":"evt_1","type":"a.b","created":1700000000,"data":{"amount":4200}}'


def make(body: bytes = BODY, **fields: Any) -> Event:
    """An event, as the receiver makes it."""
    known = {"id": "evt_1", "type": "a.b", "endpoint": "animica", "received_at": RECEIVED}
    return Event(body=body, **{**known, **fields})


DECODED = make()
assert DECODED.data == {"amount": 4200}


def refused(body: bytes) -> str:
    """Why a body is not usable."""
    with pytest.raises(MalformedEvent) as caught:
        decode_payload(body)
    return str(caught.value)


# Which JSON is taken


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {}),
        (
            b' \n\t\r{"a": [1, -2, true, false, null, "x"]} \n',
            {"a": [1, -2, True, False, None, "x"]},
        ),
        (b'{"a":18446744073709551616}', {"a": 2**64}),
        (b'{"a":-170141183460469231731687303715884105729}', {"a": -(2**127) - 1}),
        (b'{"a":' + b"9" * 4300 + b"}", {"a": 10**4300 - 1}),
        (b'{"a":1e308,"b":1E-5}', {"a": 1e308, "b": 0.00001}),
        (b'{"a":1e-999}', {"a": 0.0}),
        (b'{"a":"\\u0000\\u001b\\ud83d\\ude00"}', {"a": "\0\x1b😀"}),
        (b'{"\\u0069d":"evt_1"}', {"id": "evt_1"}),
        ('{"ключ":"значение"}'.encode(), {"ключ": "значение"}),
        (b'{"__proto__":{"x":1},"constructor":2}', {"__proto__": {"x": 1}, "constructor": 2}),
    ],
)
def test_json_that_is_taken(body: bytes, expected: object) -> None:
    """Valid JSON objects are decoded without loss, big integers too."""
    assert expected == decode_payload(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"id":"first","\\u0069d":"second"}', {"id": "second"}),
        (b'{"a":{"b":1},"a":{}}', {"a": {}}),
    ],
)
def test_the_last_of_equal_names_counts(body: bytes, expected: object) -> None:
    """Of a name given twice the last value counts, however the name is spelt."""
    assert expected == decode_payload(body)


NOT_JSON = {
    "nothing": b"",
    "white space": b"  \n",
    "text": b"hello CANARY",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "beyond a double": b'{"a":1e400}',
    "below a double": b'{"a":-2e308}',
    "4301 digits": b'{"a":' + b"9" * 4301 + b"}",
    "a lone surrogate": b'{"a":"\\ud800"}',
    "surrogates the wrong way round": b'{"a":"\\udc00\\ud800"}',
    "CESU-8": b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}',
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "latin-1": b'{"a":"\xe9"}',
    "latin-1 in a name": b'{"\xe9":1}',
    "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a BOM": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "a raw newline in text": b'{"a":"\n"}',
    "a raw NUL": b'{"a":"\x00"}',
    "a NUL after it": b"{}\x00",
    "cut off": b'{"a":"CANARY',
    "cut off in an escape": b'{"a":"\\',
    "two objects": b"{}{}",
    "a comma too many": b'{"a":1,}',
    "a comment": b'{"a":1/*CANARY*/}',
    "single quotes": b"{'a':1}",
    "a leading zero": b'{"a":01}',
    "a plus": b'{"a":+1}',
    "an unknown escape": b'{"a":"\\x41"}',
    "brackets crossed": b'{"a":[}]',
    "form-encoded": b"id=evt_1&type=CANARY",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    """Everything that the policy leaves out is refused in words that quote nothing of it."""
    assert "it is not JSON" == refused(body)


@pytest.mark.parametrize("body", [b"null", b"[]", b'[{"id":"evt_1"}]', b'"x"', b"1", b"true"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    """An array, a string, a number or null at the top is no event."""
    assert "it is JSON, but not an object" == refused(body)


SHAPES = {
    "lists": (b"[", b"]"),
    "dicts": (b'{"a":', b"}"),
    "mixed": (b'[{"a":', b"}]"),
    "dicts with brackets in their names": (b'{"[[[{\\"":', b"}"),
}


def nested(levels: int, shape: str) -> bytes:
    """An object of so many levels, itself counted."""
    opening, closing = SHAPES[shape]
    of_one = 2 if shape == "mixed" else 1
    times, rest = divmod(levels - 1, of_one)
    return b'{"x":' + b"[" * rest + opening * times + b"1" + closing * times + b"]" * rest + b"}"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [1, 2, 99, 100])
def test_nesting_up_to_the_bound_is_taken(levels: int, shape: str) -> None:
    """100 levels of arrays and objects, the outermost counted, are decoded."""
    body = nested(levels, shape)

    assert json.loads(body) == decode_payload(body)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [101, 102, 500, 990, 1000, 5000, 100_000])
def test_deeper_nesting_is_refused(levels: int, shape: str) -> None:
    """Beyond 100 levels it is refused as such, whatever Python's recursion limit."""
    assert MAX_DEPTH == 100
    assert "it nests deeper than 100 levels" == refused(nested(levels, shape))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"]" * 2000 + b"[" * 2000,
        b"{}" + b"]" * 2000 + b"[" * 2000,
        b'"' + b"[" * 100_000,
        b'{"a":"' + b'\\"[' * 50_000,
    ],
)
def test_deep_garbage_is_refused(body: bytes) -> None:
    """Brackets that never close, close too early or stand in an endless string: no crash."""
    assert refused(body) in ("it is not JSON", "it nests deeper than 100 levels")


def test_brackets_in_strings_are_not_levels() -> None:
    """Text may hold any number of brackets, quotes and backslashes."""
    texts = [
        "[" * 1000,
        "{" * 1000,
        '"' + "[" * 200 + '"',
        "\\" + "[" * 200,
        '\\"[' * 200,
        "]" * 200,
    ]
    payload = {"a": texts, "[" * 500: {"{" * 500: "\\"}}

    assert payload == decode_payload(json.dumps(payload).encode())


@pytest.mark.parametrize("closed", [b"[]", b"{}", b"[{}]", b'{"a":[]}'])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_closed_does_not_count(closed: bytes, shape: str) -> None:
    """Only what is open at once makes depth: siblings before it neither add to it nor take away."""
    siblings = b'{"siblings":[' + b",".join([closed] * 200) + b'],"deep":'

    assert decode_payload(siblings + nested(99, shape) + b"}")["deep"] == json.loads(
        nested(99, shape)
    )
    assert refused(siblings + nested(100, shape) + b"}") == "it nests deeper than 100 levels"


def test_wide_is_not_deep() -> None:
    """Many shallow arrays and objects are taken."""
    payload = {"a": [[], {}, [{}], {"b": []}] * 1000}

    assert payload == decode_payload(json.dumps(payload).encode())


def levels_of(value: object) -> int:
    """How deep a decoded value nests."""
    if isinstance(value, dict):
        return 1 + max(map(levels_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(levels_of, value), default=0)
    return 0


NASTY_TEXT = st.text(alphabet=st.sampled_from('[]{}"\\,:é\n 1'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NASTY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NASTY_TEXT, VALUES, max_size=4), st.integers(0, 110), st.booleans())
def test_decoding_agrees_with_the_standard_library(
    payload: dict[str, Any], more: int, in_lists: bool
) -> None:
    """Any object within the bound is decoded as json does; one beyond it is refused."""
    for _ in range(more):
        payload = {"x": [payload] if in_lists else payload}
    body = json.dumps(payload).encode()

    if levels_of(payload) <= MAX_DEPTH:
        assert payload == decode_payload(body)
    else:
        assert "it nests deeper than 100 levels" == refused(body)


@given(st.binary(max_size=60) | NASTY_TEXT.map(str.encode), st.sampled_from([b"", b"[" * 101]))
@example(b'{"\\\\', b"")
def test_decoding_is_total(start: bytes, end: bytes) -> None:
    """For any bytes it returns a dict or raises MalformedEvent."""
    try:
        decoded: object = decode_payload(start + end)
    except MalformedEvent:
        decoded = {}

    assert isinstance(decoded, dict)


DEAR = {
    "deep lists": lambda size: b"[" * size,
    "deep dicts": lambda size: b'{"a":' * size,
    "an endless string": lambda size: b'"' + b"a" * size + b"[" * 101,
    "an endless string of escaped quotes": lambda size: b'"' + b'\\"' * size + b"[" * 101,
    "the same, cut off in an escape": lambda size: b'"' + b'\\"' * size + b"[" * 101 + b"\\",
    "many strings": lambda size: b'["a",' * 101 + b'"\\"",' * size,
    "backslashes": lambda size: b'"' + b"\\" * size + b"[" * 101,
    "brackets that close too early": lambda size: b"]" * size + b"[" * size,
}


@pytest.mark.parametrize("make_body", DEAR.values(), ids=DEAR)
def test_refusing_takes_linear_time(make_body: Callable[[int], bytes]) -> None:
    """However a body is made, twice its size takes about twice the time."""
    assert growth(refused, make_body, 8_000) < STILL_LINEAR


def test_a_quadratic_cost_is_seen() -> None:
    """The measure of growth tells a quadratic cost from a linear one."""
    make_numbers: Callable[[int], list[int]] = lambda size: list(range(size))  # noqa: E731

    assert growth(sum, make_numbers, 20_000) < STILL_LINEAR
    assert growth(lambda numbers: [n in numbers for n in numbers], make_numbers, 200) > STILL_LINEAR


@pytest.fixture
def small_stacks() -> Iterator[None]:
    """New threads have a stack of 256 KiB."""
    before = threading.stack_size(256 * 1024)
    yield
    threading.stack_size(before)


@pytest.mark.usefixtures("small_stacks")
@pytest.mark.parametrize(
    ("levels", "expected"), [(100, "decoded"), (101, "refused"), (100_000, "refused")]
)
def test_decoding_needs_little_stack(levels: int, expected: str) -> None:
    """In a thread with a small stack the deepest body is decoded and a deeper one refused."""
    seen = []

    def decode() -> None:
        for shape in SHAPES:
            try:
                decode_payload(nested(levels, shape))
                seen.append("decoded")
            except MalformedEvent:
                seen.append("refused")

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join(timeout=60)

    assert [expected] * len(SHAPES) == seen


# Id and type


@pytest.mark.parametrize("id", ["evt_1", "x", " ", "~" * MAX_ID_LENGTH, "a b<script>'\"\\", "-1"])
def test_ids_that_are_taken(id: str) -> None:
    """1 to 255 printable ASCII characters are an id, kept as they are."""
    assert MAX_ID_LENGTH == 255
    assert id == check_id(id)


@pytest.mark.parametrize("id", [None, "", 1, 1.5, True, [], ["evt_1"], {}, b"evt_1"])
def test_an_id_is_a_string(id: object) -> None:
    """No id, null, a number or a list: not an event."""
    with pytest.raises(MalformedEvent, match="no id that is a non-empty string"):
        check_id(id)


@pytest.mark.parametrize(
    "id", ["x" * 256, "é", "evt_1\n", "evt\x001", "\x1b[2J", "\x7f", "\u00a0", "😀", "\ud800"]
)
def test_an_id_is_printable_ascii(id: str) -> None:
    """What some database would fold, cut or refuse is no id; the reason does not quote it."""
    with pytest.raises(MalformedEvent) as caught:
        check_id(id)

    assert "its id is not 1 to 255 printable ASCII characters" == str(caught.value)


@pytest.mark.parametrize(
    "type",
    ["a.b", "__proto__", "x" * 10_240, "a\n\x1b[31mb", "тип", "😀" * 4096, "*", " ", "a" * 16_384],
)
def test_types_that_are_taken(type: str) -> None:
    """Any text up to 16 KiB is a type, known or not, with control characters too."""
    assert MAX_TYPE_BYTES == 16 * 1024
    assert type == check_type(type)


@pytest.mark.parametrize("type", [None, "", 1, True, [], {"a": 1}, b"a.b"])
def test_a_type_is_a_string(type: object) -> None:
    """No type, null, a number or a list: not an event."""
    with pytest.raises(MalformedEvent, match="no type that is a non-empty string"):
        check_type(type)


@pytest.mark.parametrize("type", ["a\0b", "\0", "a" * 16_385, "😀" * 4097])
def test_a_type_is_what_every_database_holds(type: str) -> None:
    """A NUL or more than 16 KiB can not be kept."""
    with pytest.raises(MalformedEvent, match="its type has a NUL or more than 16384 bytes"):
        check_type(type)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "no id"),
        (b'{"id":"evt_1"}', "no type"),
        (b'{"type":"a.b"}', "no id"),
        (b'{"id":null,"type":"a.b"}', "no id"),
        (b'{"id":7,"type":"a.b"}', "no id"),
        (b'{"id":["evt_1"],"type":"a.b"}', "no id"),
        (b'{"id":"evt_1","type":null}', "no type"),
        (b'{"id":"evt_1\\u0000","type":"a.b"}', "its id"),
        (b'{"id":"evt_1","type":"a\\u0000"}', "its type"),
        (b'{"ID":"evt_1","Type":"a.b"}', "no id"),
    ],
)
def test_an_envelope_needs_id_and_type(body: bytes, reason: str) -> None:
    """A body without a usable id and type is refused with the reason."""
    with pytest.raises(MalformedEvent, match=reason):
        check_identity(decode_payload(body))


def test_an_envelope_needs_no_more_than_id_and_type() -> None:
    """Id and type are enough; the rest may be missing or strange."""
    payload = decode_payload(b'{"id":"evt_1","type":"a.b","data":null,"created":[]}')

    assert ("evt_1", "a.b") == check_identity(payload)


# When it was created


MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1714979289, MOMENT),
        (1714979289.25, MOMENT + timedelta(milliseconds=250)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024-05-06T07:08:09Z", MOMENT),
        ("2024-05-06t07:08:09z", MOMENT),
        ("2024-05-06 07:08:09+00:00", MOMENT),
        ("2024-05-06T07:08:09-00:00", MOMENT),
        ("2024-05-06T09:08:09+02:00", MOMENT),
        ("2024-05-06T07:08:09.25Z", MOMENT + timedelta(milliseconds=250)),
        ("2024-05-06T07:08:09.123456789Z", MOMENT + timedelta(microseconds=123456)),
    ],
)
def test_created_is_epoch_seconds_or_rfc_3339(value: object, expected: datetime) -> None:
    """Both ways to write a time are read, and are aware and UTC."""
    created = parse_created(value)

    assert expected == created
    assert created is not None
    assert created.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, [], {}, [1714979289]),
        *(float("nan"), float("inf"), -float("inf"), 1e300, 10**400, -(10**400), 1714979289000),
        *("", "now", "1714979289", "2024-05-06", "2024-05-06T07:08:09", "2024-13-06T07:08:09Z"),
        *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2024-05-06T07:08:60Z"),
        *("\ud800", "٢٠٢٤-05-06T07:08:09Z", "\0", "2024-05-06T07:08:09Z" * 1000),
    ],
)
def test_other_times_are_unreadable(value: object) -> None:
    """What is neither, has no time zone or is beyond the calendar is None, not an error."""
    assert parse_created(value) is None


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
)
def test_reading_a_time_is_total(value: object) -> None:
    """For any JSON value it returns an aware datetime or None."""
    created = parse_created(value)

    assert created is None or created.tzinfo is UTC


@pytest.mark.parametrize("created", [b"", b',"created":null', b',"created":"soon"'])
def test_the_receipt_stands_in_for_the_creation(created: bytes) -> None:
    """Where the provider says no readable time, created is received_at."""
    assert RECEIVED == make(b'{"id":"evt_1","type":"a.b"' + created + b"}").created


def test_created_is_what_the_provider_says() -> None:
    """Where it is readable, created is the provider's."""
    assert datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) == make().created


# The event


def test_an_event_has_what_was_sent() -> None:
    """Id, type, data, payload, body, endpoint and times are as they came."""
    event = make()

    assert ("evt_1", "a.b", BODY) == (event.id, event.type, event.body)
    assert ("animica", RECEIVED) == (event.endpoint, event.received_at)
    assert json.loads(BODY) == event.payload
    assert event.payload is event.payload
    assert {"amount": 4200} == event.data


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":"evt_1","type":"a.b"}', {}),
        (b'{"data":null}', None),
        (b'{"data":[1]}', [1]),
        (b'{"data":0}', 0),
        (b'{"data":{}}', {}),
    ],
)
def test_data_is_as_sent_or_empty(body: bytes, expected: object) -> None:
    """Data is the payload's, null too; without one it is an empty dict."""
    assert expected == make(body).data


def test_an_event_reads_like_a_dict() -> None:
    """The payload's fields are reached as in a dict."""
    event = make()

    assert "evt_1" == event["id"]
    assert "data" in event
    assert "nothing" not in event
    assert None is event.get("nothing")
    assert 7 == event.get("nothing", 7)
    assert 4200 == event.get("data")["amount"]
    assert ["id", "type", "created", "data"] == list(event)
    with pytest.raises(KeyError):
        event["nothing"]


@pytest.mark.parametrize("name", ["id", "type", "body", "endpoint", "received_at", "data", "new"])
def test_an_event_is_frozen(name: str) -> None:
    """No attribute can be set or deleted."""
    event = make()

    with pytest.raises(AttributeError):
        setattr(event, name, "x")
    with pytest.raises(AttributeError):
        delattr(event, name)

    assert ("evt_1", BODY) == (event.id, event.body)


def test_an_event_shows_no_payload() -> None:
    """Neither repr nor str, nor a format, shows the body, the headers or the data."""
    headers = pack_headers([(b"x-key", b"CANARY")])
    event = make(b'{"data":"CANARY"}', raw_headers=headers)
    assert "CANARY" == event.data

    assert "Event(id='evt_1', type='a.b', endpoint='animica')" == repr(event)
    assert "CANARY" not in f"{event}{event!r}{[event]}{list(event.__rich_repr__())}"


def test_equal_events_are_one_in_a_set() -> None:
    """Events are equal by endpoint, id and body, and hash so."""
    event, again = make(), make(received_at=RECEIVED + timedelta(days=1))

    assert (event == again, event != again) == (True, False)
    assert len({event, again}) == 1
    for other in (make(id="evt_2"), make(endpoint="other"), make(b"{}"), "evt_1", None):
        assert (event == other, event != other) == (False, True)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_an_event_can_be_copied(duplicate: Callable[[Event], Event]) -> None:
    """A copy is the same event, whether its payload has been decoded or not."""
    for event in (make(raw_headers=pack_headers([(b"a", b"b")])), DECODED):
        copied = duplicate(event)

        assert event == copied
        assert (event.data, event.payload) == (copied.data, copied.payload)
        assert (event.headers, event.received_at) == (copied.headers, copied.received_at)


def test_an_event_goes_to_other_processes() -> None:
    """What a handler sends to a pool of processes arrives as it was."""
    # In another process, for one that measures coverage may have imported the decoder twice.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    source = (
        "import pickle\n"
        "from animica_hooks import Event\n"
        "from animica_hooks.core.outcome import from_micros\n"
        "event = Event(id='evt_1', type='a.b', body=b'{\"data\":[1]}', endpoint='animica',\n"
        "              received_at=from_micros(7), raw_headers=b'a\\nb')\n"
        "for sent in (event, event.with_data('converted')):\n"
        "    arrived = pickle.loads(pickle.dumps(sent))\n"
        "    assert arrived == sent\n"
        "    assert (arrived.data, arrived.received_at) == (sent.data, sent.received_at)\n"
        "    assert arrived.headers == {'a': 'b'}\n"
        "print('done')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", source], env=unmeasured, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("done\n", "")


def test_with_data_changes_nothing_else() -> None:
    """The converted event has the new data, and all else of the first, which stays as it is."""
    event = make(raw_headers=pack_headers([(b"a", b"b")]))
    converted = event.with_data(("converted", 1))

    assert ("converted", 1) == converted.data
    assert {"amount": 4200} == event.data
    assert event == converted
    assert event.payload == converted.payload
    assert (event.headers, event.created) == (converted.headers, converted.created)


# The headers

NAMES = st.from_regex(rb"[a-z][a-z0-9-]{0,10}", fullmatch=True)
HEADER_VALUES = st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\0"))


@given(st.dictionaries(NAMES, HEADER_VALUES, max_size=6))
def test_headers_survive_packing(headers: dict[bytes, bytes]) -> None:
    """What is packed for the database is what event.headers reads, byte for byte."""
    credentials = (b"authorization", b"proxy-authorization", b"cookie")
    expected = {
        name.decode(): value.decode("latin-1")
        for name, value in headers.items()
        if name not in credentials
    }

    assert expected == dict(make(raw_headers=pack_headers(headers.items())).headers)


def test_credentials_are_not_kept() -> None:
    """Authorization and cookies are left out of what is stored; the signature is kept."""
    packed = pack_headers(
        [
            (b"host", b"example.com:8000"),
            (b"authorization", b"Bearer CANARY"),
            (b"proxy-authorization", b"Basic CANARY"),
            (b"cookie", b"session=CANARY"),
            (b"x-animica-signature", b"t=1,v1=00"),
            (b"x-empty", b""),
        ]
    )

    assert b"CANARY" not in packed
    assert {
        "host": "example.com:8000",
        "x-animica-signature": "t=1,v1=00",
        "x-empty": "",
    } == dict(make(raw_headers=packed).headers)


def test_headers_without_credentials_need_no_search() -> None:
    """Where it is known that there are none, nothing is left out."""
    headers = [(b"host", b"x"), (b"x-animica-signature", b"t=1,v1=00")]

    assert pack_headers(headers) == pack_headers(headers, credentials=False)


def test_without_headers_there_are_none() -> None:
    """An event that came without headers has an empty mapping."""
    assert {} == dict(make().headers)
    assert {} == dict(make(raw_headers=pack_headers([])).headers)


def test_times_are_compared_as_moments() -> None:
    """Two ways to write one moment give one created."""
    elsewhere = datetime(2024, 5, 6, 9, 8, 9, tzinfo=timezone(timedelta(hours=2)))

    assert elsewhere == parse_created(1714979289) == parse_created(elsewhere.isoformat())
