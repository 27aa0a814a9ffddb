"""The signature: what verifies, what is refused and why, for any bytes whatever."""

import decimal
import hashlib
import hmac
import json
import math
import time
from typing import Any

import pytest
import time_machine
from hypothesis import example, given
from hypothesis import strategies as st

from animica_hooks import verify_webhook
from animica_hooks.core import signature
from animica_hooks.core.signature import (
    MAX_CANDIDATES,
    MAX_HEADER_BYTES,
    Verifier,
    encode_secrets,
    parse,
    secret_id,
    sign,
    verify,
)
from animica_hooks.errors import ConfigurationError, SignatureError, SignatureReason

SECRET = b"whsec_0123456789abcdef"
OLD_SECRET = b"whsec_fedcba9876543210"
BODY = b'{"id":"evt_1","type":"payment.succeeded"}'
NOW = 1_700_000_000
T = b"1700000000"
ACCEPTED = "accepted"

# As `printf '%s' '<t>.<body>' | openssl dgst -sha256 -hmac '<secret>'` prints it.
VECTORS = [
    (SECRET, BODY, "77d2d3c0ea5ae44a763336b7fc20735a9617091b46b726df19a7c715368a8fc4"),
    (SECRET, b"", "0e1fd9afd303fb6f213cc511093ec9783e6286d777cfee89f917aebd54d9a963"),
    (
        "whsec_schlüssel_0123".encode(),
        b"\xff\xfe\x00",
        "94e2096b41c76fe26958f905a1d6d4238abac5fc32aaf9beb8b903d347450553",
    ),
]


def v1(t: bytes = T, body: bytes = BODY, secret: bytes = SECRET) -> bytes:
    """The hex digest that a sender computes."""
    return hmac.new(secret, t + b"." + body, hashlib.sha256).hexdigest().encode()


def signed(t: bytes = T, body: bytes = BODY, secret: bytes = SECRET) -> bytes:
    """The header that a sender sends."""
    return b"t=" + t + b",v1=" + v1(t, body, secret)


GOOD = v1()


def verdict(
    header: bytes,
    body: bytes = BODY,
    *,
    secrets: tuple[bytes, ...] = (SECRET,),
    now: float = NOW,
    tolerance_s: float = 300,
) -> str:
    """What the verifier makes of a delivery."""
    verifier = Verifier(secrets, tolerance_s=tolerance_s)
    try:
        by = verifier.check_body(verifier.check_header(header, now=now), body)
    except SignatureError as error:
        return error.reason
    assert by in {secret_id(secret) for secret in secrets}
    return ACCEPTED


def all_in(text: bytes, allowed: bytes) -> bool:
    """Tell whether each byte of a text is one of some."""
    return all(byte in allowed for byte in text)


DIGITS, LOWER = b"0123456789", b"abcdefghijklmnopqrstuvwxyz"


def is_other_scheme(element: bytes) -> bool:
    """Tell whether an element is one that another version may bring: name=value, both bounded."""
    name, equals, value = element.partition(b"=")
    return (
        equals == b"="
        and 1 <= len(name) <= 16
        and name[:1] in [bytes([letter]) for letter in LOWER]
        and all_in(name, LOWER + DIGITS + b"_")
        and all_in(value, LOWER + LOWER.upper() + DIGITS + b"+/=_.-")
    )


def oracle(
    header: bytes,
    body: bytes,
    *,
    secrets: tuple[bytes, ...] = (SECRET,),
    now: float = NOW,
    tolerance_s: float = 300,
) -> str:
    """What the contract says of a delivery, spelt out without the package."""
    if header == b"":
        return "missing"
    timestamps, digests = [], []
    for element in header.split(b","):
        if element.startswith(b"t="):
            timestamps.append(element[2:])
        elif element.startswith(b"v1="):
            digests.append(element[3:])
        elif element in (b"t", b"v1") or not is_other_scheme(element):
            return "malformed"
    grammatical = (
        len(header) <= 2048
        and len(timestamps) == 1
        and 1 <= len(timestamps[0]) <= 19
        and all_in(timestamps[0], DIGITS)
        and (timestamps[0] == b"0" or timestamps[0][:1] != b"0")
        and 1 <= len(digests) <= 8
        and all(len(digest) == 64 and all_in(digest, DIGITS + b"abcdef") for digest in digests)
    )
    if not grammatical:
        return "malformed"
    if not int(timestamps[0]) - tolerance_s <= now <= int(timestamps[0]) + tolerance_s:
        return "timestamp"
    genuine = [v1(timestamps[0], body, secret) for secret in secrets]
    return ACCEPTED if set(genuine) & set(digests) else "mismatch"


@pytest.mark.parametrize(("secret", "body", "expected"), VECTORS)
def test_known_vectors(secret: bytes, body: bytes, expected: str) -> None:
    """The digest is HMAC-SHA256 of "{t}.{raw body}", in lower-case hex, as openssl computes it."""
    header = f"t={NOW},v1={expected}"

    assert header == sign(body, secret, timestamp=NOW)
    assert header == sign(body, secret.decode(), timestamp=NOW)
    assert ACCEPTED == verdict(header.encode(), body, secrets=(secret,))


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40), st.integers(0, 10**18))
def test_what_sign_makes_verifies(body: bytes, secret: str, timestamp: int) -> None:
    """Whatever body and secret: a signature made by us is accepted, and is what stdlib computes."""
    header = sign(body, secret, timestamp=timestamp).encode()
    key = secret.encode("utf-8", "surrogatepass")

    assert signed(str(timestamp).encode(), body, key) == header
    assert ACCEPTED == verdict(header, body, secrets=(key,), now=timestamp)


ELEMENTS = st.one_of(
    st.sampled_from(
        [
            b"t=" + T,
            b"v1=" + GOOD,
            b"v1=" + v1(secret=OLD_SECRET),
            b"v1=" + v1(b"1700000001"),
            b"t=1700000001",
            b"t=0",
            b"t=01700000000",
            b"v0=" + GOOD,
            b"v2=AbC+/=_.-",
            b"v1",
            b"t",
            b"",
        ]
    ),
    st.builds(lambda name, value: name + b"=" + value, st.sampled_from([b"t", b"v1"]), st.binary()),
    st.from_regex(rb"[a-z][a-z0-9_]{0,16}=[0-9A-Za-z+/=_.-]{0,5}", fullmatch=True),
    st.from_regex(rb"t=[0-9]{1,21}", fullmatch=True),
    st.from_regex(rb"v1=[0-9a-fA-F]{62,66}", fullmatch=True),
    st.binary(max_size=8),
)
HEADERS = st.one_of(
    st.lists(ELEMENTS, max_size=12).map(b",".join),
    st.permutations([b"t=" + T, b"v1=" + GOOD, b"v1=" + b"0" * 64, b"v0=x"]).map(b",".join),
    st.binary(max_size=100),
)


@given(HEADERS, st.sampled_from([BODY, BODY + b"\n"]), st.sampled_from([NOW, NOW + 301]))
@example(signed(), BODY, NOW)
@example(signed(secret=OLD_SECRET), BODY, NOW)
@example(b",".join([b"t=" + T, b"v1=" + GOOD, *[b"v2=" + b"x" * 100] * 20]), BODY, NOW)
def test_the_verifier_answers_as_the_oracle(header: bytes, body: bytes, now: float) -> None:
    """For any header the answer is the contract's, by an implementation that shares no code."""
    secrets = (SECRET, OLD_SECRET)

    assert oracle(header, body, secrets=secrets, now=now) == verdict(
        header, body, secrets=secrets, now=now
    )


BAD_TIMESTAMPS = {
    "empty": b"",
    "plus": b"+1700000000",
    "minus": b"-1700000000",
    "underscore": b"1_700_000_000",
    "fraction": b"1700000000.0",
    "leading zero": b"01700000000",
    "many leading zeros": b"0" * 20 + T,
    "leading space": b" 1700000000",
    "trailing space": b"1700000000 ",
    "newline": b"1700000000\n",
    "arabic digits": "١٧٠٠٠٠٠٠٠٠".encode(),
    "fullwidth digits": "１７００００００００".encode(),
    "superscript in latin-1": b"170000000\xb2",
    "20 digits": b"1" * 20,
    "5000 digits": b"1" * 5000,
    "NaN": b"NaN",
    "infinity": b"inf",
    "exponent": b"1e9",
    "hexadecimal": b"0x6553F100",
    "quoted": b'"1700000000"',
    "NUL": b"1700000000\x00",
}


@pytest.mark.parametrize("t", BAD_TIMESTAMPS.values(), ids=BAD_TIMESTAMPS)
def test_a_timestamp_is_plain_ascii_digits(t: bytes) -> None:
    """What Python's int() would take is refused all the same, though the HMAC fits."""
    assert "malformed" == verdict(signed(t), tolerance_s=math.inf)


BAD_CANDIDATES = {
    "empty": b"",
    "63 digits": GOOD[:-1],
    "65 digits": GOOD + b"0",
    "upper case": GOOD.upper(),
    "non-ASCII": b"\xe9\xff" * 32,
    "UTF-8": "é".encode() * 32,
    "not hex": b"g" * 64,
    "leading space": b" " + GOOD[1:],
    "trailing newline": GOOD + b"\n",
    "with 0x": b"0x" + GOOD[2:],
    "base64": b"d9LTwOpa5Ep2Mza3/CBzWpYXCRtGtybfGafHFTaKj8Q=",
    "NUL": GOOD[:-1] + b"\x00",
}


@pytest.mark.parametrize("candidate", BAD_CANDIDATES.values(), ids=BAD_CANDIDATES)
def test_a_candidate_is_64_lower_case_hex_digits(candidate: bytes) -> None:
    """Any other v1 makes the header malformed, beside a good one too."""
    assert "malformed" == verdict(b"t=" + T + b",v1=" + candidate)
    assert "malformed" == verdict(signed() + b",v1=" + candidate)


BAD_HEADERS = {
    "only t": b"t=" + T,
    "only v1": b"v1=" + GOOD,
    "v1 of another scheme only": b"t=" + T + b",v0=" + GOOD,
    "t twice": b"t=" + T + b"," + signed(),
    "t twice, the same last": signed() + b",t=" + T,
    "space after the comma": b"t=" + T + b", v1=" + GOOD,
    "space before": b" " + signed(),
    "space after": signed() + b" ",
    "tab": b"t=" + T + b",\tv1=" + GOOD,
    "space around =": b"t =" + T + b",v1=" + GOOD,
    "upper-case names": b"T=" + T + b",V1=" + GOOD,
    "empty element": b"t=" + T + b",,v1=" + GOOD,
    "comma at the end": signed() + b",",
    "comma at the start": b"," + signed(),
    "semicolons": b"t=" + T + b";v1=" + GOOD,
    "no =": signed() + b",v0",
    "other scheme with a space": signed() + b",v0=a b",
    "other scheme, not ASCII": signed() + b",v0=\xe9",
    "other scheme's name too long": signed() + b"," + b"a" * 17 + b"=1",
    "other scheme's name with a dash": signed() + b",v-0=1",
    "JSON": b'{"t":1700000000}',
    "a comma": b",",
    "an equals sign": b"=",
    "a NUL": b"\x00",
    "two headers joined": signed() + b", " + signed(),
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_the_grammar_is_strict(header: bytes) -> None:
    """What is not exactly of the grammar is malformed, whatever good signature is in it."""
    assert "malformed" == verdict(header)


def test_an_empty_header_is_missing() -> None:
    """No header and an empty one have a reason of their own."""
    assert "missing" == verdict(b"")


def test_order_and_other_schemes_do_not_matter() -> None:
    """The elements come in any order, with elements of schemes that are not ours between them."""
    header = b"v1=" + GOOD + b",v0=old,t=" + T + b",v1a=A+/=_.-,x="

    assert ACCEPTED == verdict(header)


@pytest.mark.parametrize(
    ("candidates", "expected"), [(MAX_CANDIDATES, ACCEPTED), (MAX_CANDIDATES + 1, "malformed")]
)
def test_candidates_are_bounded(candidates: int, expected: str) -> None:
    """Eight signatures are looked at, the last one too; a header with nine is refused."""
    assert MAX_CANDIDATES == 8
    wrong = [b"v1=" + b"0" * 64] * (candidates - 1)

    assert expected == verdict(b",".join([b"t=" + T, *wrong, b"v1=" + GOOD]))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (MAX_HEADER_BYTES, ACCEPTED),
        (MAX_HEADER_BYTES + 1, "malformed"),
        (1_000_000, "malformed"),
    ],
)
def test_the_header_is_bounded(length: int, expected: str) -> None:
    """A header has at most 2 KiB."""
    assert MAX_HEADER_BYTES == 2048
    padding = length - len(signed()) - len(b",v0=")

    assert expected == verdict(signed() + b",v0=" + b"a" * padding)


def test_grammar_and_clock_come_before_any_hmac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's garbage costs no HMAC, and a good header none before its body is there."""
    computed = []
    monkeypatch.setattr(signature.hmac, "digest", lambda *a: computed.append(a) or b"")
    verifier = Verifier([SECRET], tolerance_s=300)

    for header in (b"", b"t=" + T, signed(b"1"), signed()):
        try:
            verifier.check_header(header, now=NOW)
        except SignatureError:
            pass

    assert [] == computed


def test_digests_are_compared_as_bytes_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison of digests is hmac.compare_digest's, of 32 raw bytes each."""
    compared: list[tuple[object, object]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(
        signature.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b)
    )
    header = b",".join([b"t=" + T, b"v1=" + b"0" * 64, b"v1=" + v1(secret=OLD_SECRET)])

    assert ACCEPTED == verdict(header, secrets=(SECRET, OLD_SECRET))
    assert 4 == len(compared)
    assert all(isinstance(d, bytes) and len(d) == 32 for pair in compared for d in pair)


HOUR, YEAR = 3600, 365 * 24 * 3600


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (NOW, ACCEPTED),
        *[(NOW + sign * off, ACCEPTED) for sign in (-1, 1) for off in (299, 300)],
        *[(NOW + sign * off, "timestamp") for sign in (-1, 1) for off in (301, HOUR, 10 * YEAR)],
        (0, "timestamp"),
        (10**19 - 1, "timestamp"),
        (-1, "malformed"),
    ],
)
def test_the_clock_is_checked_on_both_sides(t: int, expected: str) -> None:
    """A timestamp may be off by the tolerance and no more, in the past and in the future."""
    assert expected == verdict(signed(str(t).encode()))


def test_the_clock_is_not_rounded() -> None:
    """Half a second beyond the tolerance is beyond it."""
    assert ACCEPTED == verdict(signed(), now=NOW + 300.0)
    assert "timestamp" == verdict(signed(), now=NOW + 300.5)
    assert "timestamp" == verdict(signed(), now=NOW - 300.5)


def test_a_clock_that_is_no_number_accepts_nothing() -> None:
    """Where the clock fails, the check fails closed."""
    assert "timestamp" == verdict(signed(), now=math.nan)
    assert "timestamp" == verdict(signed(), tolerance_s=math.nan)


@pytest.mark.parametrize("by", [SECRET, OLD_SECRET])
def test_during_a_rotation_both_secrets_verify(by: bytes) -> None:
    """Each secret of the list verifies, and which one did is told by its id."""
    verifier = Verifier([SECRET, OLD_SECRET], tolerance_s=300)

    header = verifier.check_header(signed(secret=by), now=NOW)

    assert secret_id(by) == verifier.check_body(header, BODY)


def test_a_header_signed_twice_verifies_with_either_secret() -> None:
    """A sender that rotates signs with both; one that we have is enough."""
    both = b",".join([b"t=" + T, b"v1=" + v1(secret=SECRET), b"v1=" + v1(secret=OLD_SECRET)])

    assert ACCEPTED == verdict(both, secrets=(SECRET,))
    assert ACCEPTED == verdict(both, secrets=(OLD_SECRET,))
    assert "mismatch" == verdict(both, secrets=(b"whsec_of_somebody_else",))


def test_after_a_rotation_the_old_secret_is_refused() -> None:
    """A secret that is no longer listed verifies nothing; no secret at all neither."""
    assert "mismatch" == verdict(signed(secret=OLD_SECRET), secrets=(SECRET,))
    assert "mismatch" == verdict(signed(), secrets=())


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_any_flipped_byte_of_the_body_is_refused(position: int, mask: int) -> None:
    """One byte of the body changed, in whatever way, and it does not verify."""
    changed = bytearray(BODY)
    changed[position] ^= mask

    assert "mismatch" == verdict(signed(), bytes(changed))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.loads(BODY)).encode(),
        json.dumps(json.loads(BODY), indent=2).encode(),
        BODY + b"\n",
        BODY + b"\r\n",
        b" " + BODY,
        BODY[:-1],
        b"",
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
    ],
)
def test_a_body_that_was_changed_on_its_way_is_refused(body: bytes) -> None:
    """Serialised again, with a newline, cut or in another encoding: it is not what was signed."""
    assert "mismatch" == verdict(signed(), body)


@pytest.mark.parametrize(
    "body", [b"", b"\xef\xbb\xbf{}", b"\xff\xfe\x00", "{}".encode("utf-16"), b"\x00" * 1000]
)
def test_the_signature_is_of_the_raw_bytes(body: bytes) -> None:
    """A body that is empty, has a BOM or is not UTF-8 verifies by its bytes alone."""
    assert ACCEPTED == verdict(signed(body=body), body)


def test_the_dot_does_not_move() -> None:
    """Digits cannot pass from the body to the timestamp: "17.0x" is not "170.x"."""
    moved = b"t=17000000001,v1=" + v1(T, b"1.x")

    assert "mismatch" == verdict(moved, b".x", now=17_000_000_001)


def test_parse_returns_what_was_sent() -> None:
    """The parsed header has the timestamp as sent and the candidates in their order."""
    parsed = parse(b"v1=" + b"ab" * 32 + b",t=0,v1=" + b"cd" * 32)

    assert b"0" == parsed.timestamp
    assert (b"\xab" * 32, b"\xcd" * 32) == parsed.candidates


def test_no_error_and_no_repr_has_a_secret() -> None:
    """Neither a verifier's repr nor an error's text shows the secret or the expected digest."""
    verifier = Verifier([SECRET], tolerance_s=300)
    header = verifier.check_header(b"t=" + T + b",v1=" + b"0" * 64, now=NOW)

    with pytest.raises(SignatureError) as caught:
        verifier.check_body(header, BODY)

    shown = f"{verifier!r} {verifier} {caught.value!r} {caught.value} {caught.value.args}"
    assert secret_id(SECRET) in shown
    for secret in (SECRET.decode(), GOOD.decode(), bytes.fromhex(GOOD.decode())):
        assert str(secret) not in shown


def test_a_secret_id_is_short_and_its_own() -> None:
    """Secrets are told apart by 8 hex digits that are not a prefix of anything guessable."""
    ids = [secret_id(SECRET), secret_id(OLD_SECRET)]

    assert 2 == len(set(ids))
    assert all(len(id) == 8 and all_in(id.encode(), DIGITS + b"abcdef") for id in ids)
    assert not hashlib.sha256(SECRET).hexdigest().startswith(ids[0])


BAD_SECRETS = {
    "empty": "",
    "blank": " ",
    "long and blank": " \t\n" * 10,
    "a tab": "\t",
    "15 bytes": "abcdefghij01234",
    "15 bytes with prefix": "whsec_abcdefghi",
    "the prefix alone": "whsec_",
    "three stars": "***",
    "many stars": "*" * 32,
    "a masked secret": "whsec_" + "*" * 32,
    "bullets": "whsec_" + "•" * 32,
    "crosses": "x" * 32,
    "newline at the end": "whsec_0123456789abcdef\n",
    "space at the start": " whsec_0123456789abcdef",
    "tab at the end": "whsec_0123456789abcdef\t",
    "no-break space": "whsec_0123456789abcdef\u00a0",
    "bytes": b"whsec_0123456789abcdef",
    "a number": 1234567890123456,
    "None": None,
    "a function": lambda: "whsec_0123456789abcdef",
}
PARTS_OF_BAD_SECRETS = ["0123456", "1234567", "abcdef", "**", "••", "xx"]


@pytest.mark.parametrize("secret", BAD_SECRETS.values(), ids=BAD_SECRETS)
def test_a_secret_that_can_not_be_one_is_refused(secret: Any) -> None:
    """Blank, masked, short and padded secrets are refused, alone and in a list, unseen."""
    for given_as in (secret, [secret], ["whsec_a_good_one_0123", secret]):
        with pytest.raises(ConfigurationError, match="signing_secret") as caught:
            encode_secrets(given_as)

        shown = f"{caught.value!r}{caught.value}"
        assert [] == [part for part in PARTS_OF_BAD_SECRETS if part in shown]


@pytest.mark.parametrize("none", [[], (), iter(())])
def test_no_secret_at_all_is_refused(none: Any) -> None:
    """An empty list is a mistake, not "accept everything"."""
    with pytest.raises(ConfigurationError, match="at least one"):
        encode_secrets(none)


def test_good_secrets_are_used_verbatim() -> None:
    """Secrets are their UTF-8 bytes, the prefix included, in the order given."""
    secrets = ["whsec_0123456789", "0123456789abcdef", "schlüssel_schlüssel", "whsec_with space in"]

    assert tuple(secret.encode() for secret in secrets) == encode_secrets(secrets)
    assert (b"0123456789abcdef",) == encode_secrets("0123456789abcdef")
    assert (b"0123456789abcdef",) == encode_secrets(iter(["0123456789abcdef"]))


# verify_webhook


def test_verify_webhook_takes_text_and_bytes() -> None:
    """Secret, payload and header may each be str or bytes, as in the helper it replaces."""
    header = sign(BODY, SECRET, timestamp=int(time.time()))

    for secret in (SECRET, SECRET.decode()):
        for payload in (BODY, BODY.decode()):
            for value in (header, header.encode()):
                assert verify_webhook(secret, payload, value) is True
                assert verify_webhook(secret, payload, signature_header=value, tolerance_sec=1000)


@time_machine.travel(NOW, tick=False)
@pytest.mark.parametrize(
    ("off", "tolerance_sec", "expected"),
    [
        (300, 300, True),
        (-300, 300, True),
        (301, 300, False),
        (-301, 300, False),
        (10, 9, False),
        (2, 1, False),
        (1, 0.5, False),
        (10, 10.5, True),
        (10 * YEAR, 0, True),
        (-10 * YEAR, -1, True),
        (10 * YEAR, math.inf, True),
        (0, math.nan, False),
    ],
)
def test_verify_webhook_checks_the_clock(off: int, tolerance_sec: float, expected: bool) -> None:
    """The tolerance holds on both sides; 0 and less leave the clock unchecked."""
    header = signed(str(NOW + off).encode())

    assert expected is verify_webhook(SECRET, BODY, header, tolerance_sec)


@time_machine.travel(NOW, tick=False)
def test_verify_webhook_by_default_tolerates_300_seconds() -> None:
    """A tolerance that is not given is of 300 s, to either side."""
    assert verify_webhook(SECRET, BODY, signed(b"1700000300")) is True
    assert verify_webhook(SECRET, BODY, signed(b"1700000301")) is False


@pytest.mark.parametrize("blank", ["", " ", "\n\t", b"", b" "])
def test_a_blank_secret_verifies_nothing(blank: str | bytes) -> None:
    """An unset secret is not a secret that everybody knows."""
    header = sign(BODY, blank, timestamp=NOW)

    assert verify(blank, BODY, header, tolerance_s=300, now=NOW) is False


def test_a_short_secret_verifies() -> None:
    """verify_webhook takes any secret that is not blank, as the helper it replaces."""
    assert verify("x", BODY, sign(BODY, "x", timestamp=NOW), tolerance_s=300, now=NOW) is True


@given(HEADERS, st.sampled_from([BODY, b"other"]), st.sampled_from([-1, 0, 300]))
def test_verify_answers_as_the_oracle(header: bytes, body: bytes, tolerance_s: float) -> None:
    """For any header verify says True exactly where the contract accepts, given as text too."""
    unchecked = tolerance_s if tolerance_s > 0 else math.inf
    expected = oracle(header, body, tolerance_s=unchecked) == ACCEPTED

    for given_as in (header, header.decode("latin-1")):
        assert expected is verify(SECRET, body, given_as, tolerance_s=tolerance_s, now=NOW)


class Hostile:
    """An object whose every comparison raises."""

    def __le__(self, other: object) -> bool:
        raise RuntimeError("hostile")

    def encode(self, *arguments: object) -> bytes:
        raise ZeroDivisionError


def released() -> memoryview:
    """A view on nothing."""
    view = memoryview(b"x")
    view.release()
    return view


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.text(),
    st.text(alphabet=st.characters(categories=["Cs"])),
    st.binary(),
    st.binary().map(bytearray),
    st.binary().map(memoryview),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.text()),
    st.sampled_from([SECRET, BODY, signed(), signed().decode(), 300, 10**400, Hostile(), object]),
    st.builds(released),
    st.just(memoryview(b"abcdef")[::2]),
    st.just(decimal.Decimal("sNaN")),
)


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
@example(SECRET, BODY, signed(), decimal.Decimal("sNaN"))
@example(SECRET, BODY, signed(), Hostile())
@example(Hostile(), BODY, signed(), 300)
@example(SECRET, memoryview(b"abcdef")[::2], signed(), 300)
@example(SECRET, BODY, "t=١٧٠٠٠٠٠٠٠٠,v1=" + "é" * 64, 0)
@example("\ud800", "\ud800", "\ud800", 0)
def test_verify_webhook_is_total(secret: Any, payload: Any, header: Any, tolerance: Any) -> None:
    """Whatever it is given, of whatever types, it returns True or False."""
    assert verify_webhook(secret, payload, header, tolerance) in (True, False)
    assert isinstance(verify_webhook(secret, payload, header, tolerance), bool)


def test_reasons_are_those_of_the_contract() -> None:
    """The oracle's words are the package's."""
    assert {"missing", "malformed", "timestamp", "mismatch"} == set(SignatureReason)
