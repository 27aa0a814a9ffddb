"""Deliveries mutated by the hundred thousand: none raises, none that nobody signed is accepted.

The judge shares no code with the package: what was signed is known, because it was signed here.
"""

import hashlib
import hmac
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from animica_hooks.core.signature import Verifier
from animica_hooks.errors import SignatureError, SignatureReason

FULL = os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full"
MUTANTS = 1_000_000 if FULL else 100_000
# A planted bug is found long before.
MUTANTS_FOR_A_BUG = 50_000

NOW = 1_700_000_000
TOLERANCE_S = 300
SECRETS = (b"whsec_0123456789abcdef", b"whsec_fedcba9876543210")
STRANGER = b"whsec_of_somebody_else"
BODIES = [
    b"",
    b'{"id":"evt_1","type":"payment.succeeded","data":{"amount":4200}}',
    b'{"id":"evt_1","type":"payment.succeeded","data":{"amount":42000}}',
    "\ufeff{'größe': 5}".encode(),
    bytes(range(256)),
]
TIMES = [NOW, NOW - 300, NOW + 300, NOW - 301, NOW + 301, NOW * 10, 0, 17, 10**18]

Check = Callable[[bytes, bytes], None]
"""Takes a header and a body; returns if it accepts them, else raises SignatureError."""


def digest(secret: bytes, t: bytes, body: bytes) -> bytes:
    return hmac.new(secret, t + b"." + body, hashlib.sha256).hexdigest().encode()


@dataclass(frozen=True)
class Delivery:
    header: bytes
    body: bytes


class Provider:
    """Signs deliveries, and remembers all that it has signed with one of the secrets."""

    def __init__(self) -> None:
        self.signed: set[tuple[bytes, bytes]] = set()
        self.deliveries: list[Delivery] = []
        for body in BODIES:
            for time in TIMES:
                t = str(time).encode()
                self.signed.add((t, body))
                new, old, stranger = (digest(key, t, body) for key in (*SECRETS, STRANGER))
                for header in (
                    b"t=%b,v1=%b" % (t, new),
                    b"t=%b,v1=%b" % (t, old),
                    b"v1=%b,v0=%b,t=%b,v1=%b" % (stranger, new[::-1], t, old),
                    b",".join([b"t=" + t, *[b"v1=" + stranger] * 7, b"v1=" + new]),
                    b"t=%b,v1=%b" % (t, stranger),
                ):
                    self.deliveries.append(Delivery(header, body))

    def is_genuine(self, delivery: Delivery) -> bool:
        """Tell whether the delivery's one timestamp and its body were signed, in time."""
        times = re.findall(rb"(?:^|,)t=([^,]*)", delivery.header)
        return (
            len(times) == 1
            and (times[0], delivery.body) in self.signed
            and abs(NOW - int(times[0])) <= TOLERANCE_S
            and any(digest(key, times[0], delivery.body) in delivery.header for key in SECRETS)
        )


# What parsers have been seen to trip over.
TOKENS = [
    *(b",", b"=", b"t=", b"v1=", b"v0=", b",t=", b",v1=", b" ", b"\t", b"\n", b"\x00", b"+", b"-"),
    *(b"_", b".", b"0", b"1", b"a", b"F", b"\xe9", b"\xff", b"\xd9\xa1", b"\xef\xbc\x91", b"1e9"),
    *(b"NaN", b"0x", b'"', b"%", b"v1=" + b"0" * 64, b",t=1700000000", b"9" * 20, b"a" * 2048),
]


Mutation = Callable[[bytes, int, random.Random, Provider], bytes]
"""Changes a header, or a body, at a place."""


def replace(text: bytes, at: int, byte: int) -> bytes:
    return text[:at] + bytes([byte]) + text[at + 1 :]


def another_byte(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return replace(text, at, rng.randrange(256))


def another_digit(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return replace(text, at, rng.choice(b"0123456789abcdef"))


def another_bit(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return replace(text, at, text[at] ^ 1 << rng.randrange(8)) if at < len(text) else text


def a_token_more(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return text[:at] + rng.choice(TOKENS) + text[at:]


def a_piece_less(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return text[:at] + text[at + rng.choice((1, 1, 2, 8, 64)) :]


def a_piece_twice(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return text[:at] + text[max(0, at - rng.randrange(80)) :]


def spliced(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    other = rng.choice(provider.deliveries).header
    return text[:at] + other[rng.randrange(len(other) + 1) :]


def shuffled(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    elements = text.split(b",")
    return b",".join(rng.sample(elements, rng.randint(1, len(elements))))


def another_time(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    t = str(rng.choice(TIMES) + rng.choice((-1, 0, 0, 1))).encode()
    return re.sub(rb"t=[0-9]*", b"t=" + t, text, count=1)


def an_element_more(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return text + b"," + rng.choice(rng.choice(provider.deliveries).header.split(b","))


def in_another_case(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return text[:at] + text[at:].swapcase()


def another_body(text: bytes, at: int, rng: random.Random, provider: Provider) -> bytes:
    return rng.choice(BODIES)


OF_HEADERS: list[Mutation] = [
    *(another_byte, another_digit, another_bit, a_token_more, a_piece_less, a_piece_twice),
    *(spliced, shuffled, another_time, an_element_more, in_another_case),
]
OF_BODIES: list[Mutation] = [another_byte, another_bit, a_token_more, a_piece_less, another_body]


def mutate(provider: Provider, rng: random.Random) -> Delivery:
    """Make a delivery of a known one, by a few changes of its header or its body."""
    original = rng.choice(provider.deliveries)
    header, body = original.header, original.body
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.8:
            at = rng.randrange(len(header) + 1)
            header = rng.choice(OF_HEADERS)(header, at, rng, provider)
        else:
            body = rng.choice(OF_BODIES)(body, rng.randrange(len(body) + 1), rng, provider)
    return Delivery(header, body)


def fuzz(check: Check, mutants: int, seed: int) -> Counter[str]:
    """Show mutants to a verifier; return how many met which fate.

    Raises:
        AssertionError: one was accepted that is not genuine.
        Exception: whatever the verifier raised that is no SignatureError.
    """
    provider, rng = Provider(), random.Random(seed)
    fates: Counter[str] = Counter()
    for _ in range(mutants):
        mutant = mutate(provider, rng)
        try:
            check(mutant.header, mutant.body)
        except SignatureError as error:
            fates[error.reason] += 1
        else:
            assert provider.is_genuine(mutant), f"accepted, but not signed: {mutant}"
            fates["accepted"] += 1
    return fates


def check(header: bytes, body: bytes) -> None:
    """The package's verifier."""
    verifier = Verifier(SECRETS, tolerance_s=TOLERANCE_S)
    verifier.check_body(verifier.check_header(header, now=NOW), body)


def test_genuine_deliveries_are_accepted_and_no_others() -> None:
    """Of the deliveries that are mutated, exactly those are accepted that were signed in time."""
    for delivery in Provider().deliveries:
        try:
            check(delivery.header, delivery.body)
            accepted = True
        except SignatureError:
            accepted = False

        assert Provider().is_genuine(delivery) is accepted


def test_no_mutant_raises_and_none_is_accepted_that_was_not_signed() -> None:
    """Whatever is done to headers and bodies: a SignatureError, or it was signed."""
    seed = random.SystemRandom().randrange(2**32) if FULL else 1

    fates = fuzz(check, MUTANTS, seed)

    assert sum(fates.values()) == MUTANTS
    # Each way through the verifier was gone often, so that the above says something.
    for fate in ("accepted", "malformed", "mismatch", "timestamp"):
        assert fates[fate] > MUTANTS / 100, (fate, seed)


# Verifiers with the bugs that others have shipped.


def fields(header: bytes) -> tuple[bytes, list[bytes]]:
    """Parse as many do: leniently."""
    pairs = [element.partition(b"=")[::2] for element in header.split(b",")]
    times = [value for name, value in pairs if name == b"t"]
    if len(times) != 1:
        raise SignatureError(SignatureReason.MALFORMED)
    return times[0], [value for name, value in pairs if name == b"v1"]


def refuse_unless(good: bool) -> None:
    if not good:
        raise SignatureError(SignatureReason.MISMATCH)


def in_time(t: bytes) -> bool:
    try:
        return abs(NOW - int(t)) <= TOLERANCE_S
    except ValueError:
        return False


def has_no_bug(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    refuse_unless(in_time(t) and any(digest(key, t, body) in candidates for key in SECRETS))


def test_a_verifier_without_a_bug_is_not_blamed() -> None:
    """The verifiers below are found out for their bugs, not for how they parse."""
    assert fuzz(has_no_bug, MUTANTS_FOR_A_BUG, seed=1)["accepted"] > 0


def compares_a_prefix(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    genuine = digest(SECRETS[0], t, body)
    refuse_unless(in_time(t) and any(genuine[:60] == given[:60] for given in candidates))


def compares_what_is_there(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    genuine = digest(SECRETS[0], t, body)
    refuse_unless(in_time(t) and any(genuine.startswith(given) for given in candidates))


def ignores_the_timestamp(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    genuine = {digest(SECRETS[0], str(time).encode(), body) for time in TIMES}
    refuse_unless(in_time(t) and bool(genuine & set(candidates)))


def ignores_the_body(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    genuine = {digest(SECRETS[0], t, known) for known in BODIES}
    refuse_unless(in_time(t) and bool(genuine & set(candidates)))


def ignores_the_clock(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    refuse_unless(digest(SECRETS[0], t, body) in candidates)


def checks_one_side_of_the_clock(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    recent = t.isdigit() and NOW - int(t) <= TOLERANCE_S
    refuse_unless(recent and digest(SECRETS[0], t, body) in candidates)


def normalises_the_timestamp(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    refuse_unless(in_time(t) and digest(SECRETS[0], str(int(t)).encode(), body) in candidates)


def raises_on_a_bad_timestamp(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    recent = abs(NOW - int(t)) <= TOLERANCE_S
    refuse_unless(recent and digest(SECRETS[0], t, body) in candidates)


def raises_on_non_ascii(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    genuine = digest(SECRETS[0], t, body).decode()
    texts = [candidate.decode("latin-1") for candidate in candidates]
    refuse_unless(in_time(t) and any(hmac.compare_digest(genuine, text) for text in texts))


def takes_one_time_for_the_clock_and_another_for_the_digest(header: bytes, body: bytes) -> None:
    times = re.findall(rb"(?:^|,)t=([^,]*)", header)
    fresh = bool(times) and in_time(times[0])
    refuse_unless(fresh and digest(SECRETS[0], times[-1], body) in header)


def strips_the_body(header: bytes, body: bytes) -> None:
    t, candidates = fields(header)
    refuse_unless(in_time(t) and digest(SECRETS[0], t, body.strip()) in candidates)


PLANTED = [
    compares_a_prefix,
    compares_what_is_there,
    ignores_the_timestamp,
    ignores_the_body,
    ignores_the_clock,
    checks_one_side_of_the_clock,
    normalises_the_timestamp,
    raises_on_a_bad_timestamp,
    raises_on_non_ascii,
    takes_one_time_for_the_clock_and_another_for_the_digest,
    strips_the_body,
]


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: Check) -> None:
    """Each bug that verifiers of this scheme have had is found by the same mutants."""
    with pytest.raises((AssertionError, ValueError, TypeError)):
        fuzz(bug, MUTANTS_FOR_A_BUG, seed=1)
