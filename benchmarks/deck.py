"""Decks of signed requests, prepared before the clock starts, each sent at most once.

Rule 1: an id is drawn once and never again, in this deck or another: a duplicate is answered
faster than a new event, so that a reused body would flatter every contestant.
Rule 2: every record is one whole HTTP request of the same length, so that a load generator
only reads on and sends.
Rule 3: a deck that runs out fails its window; no generator ever starts over.
"""

import hmac
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.apps.common import SIGNING_SECRET

BODY_BYTES = 1024
BUFFER_BYTES = 1024 * 1024

SECRET = SIGNING_SECRET.encode()
ID_BYTES = 12

HEAD = (
    "POST {path} HTTP/1.1\r\n"
    "Host: 127.0.0.1\r\n"
    "User-Agent: Animica-Webhooks/1.0\r\n"
    "Accept: */*\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: {length}\r\n"
    "X-Animica-Signature: {signature}\r\n"
    "\r\n"
)
BODY = (
    '{"id":"evt_%s","type":"payment.succeeded","created":%d,"livemode":false,"data":'
    '{"id":"pay_%s","object":"payment","amount":4200,"currency":"eur","status":"succeeded",'
    '"customer":{"id":"cus_5f2b8c","email":"ada@example.org","name":"Ada Example"},'
    '"card":{"brand":"visa","last4":"4242","exp_month":12,"exp_year":2031},'
    '"metadata":{"order":"10542","note":"%s"}}}'
)
# Where the former leaves no room.
SHORT_BODY = (
    '{"id":"evt_%s","type":"payment.succeeded","created":%d,"livemode":false,"data":'
    '{"id":"pay_%s","amount":4200,"note":"%s"}}'
)
SHORTEST_BYTES = 200
FILLER = "lorem ipsum dolor sit amet "


@dataclass(frozen=True)
class Deck:
    """A file of `count` records of `record_bytes` each."""

    path: Path
    count: int
    record_bytes: int


def new_body(now: int, size: int = BODY_BYTES) -> bytes:
    """Return a body of so many bytes with an id that no other has."""
    # Random rather than counted: real ids are, and a sorted unique index is cheaper to extend.
    unique = os.urandom(ID_BYTES).hex()
    for body in (BODY, SHORT_BODY):
        missing = size - len(body % (unique, now, unique, ""))
        if missing >= 0:
            return (body % (unique, now, unique, _filler(missing))).encode()
    raise ValueError(f"no event fits in {size} bytes")


@cache
def _filler(size: int) -> str:
    return (FILLER * (size // len(FILLER) + 1))[:size]


def sign(body: bytes, timestamp: int) -> str:
    """Return the value of `X-Animica-Signature`."""
    signed = b"%d.%b" % (timestamp, body)
    return f"t={timestamp},v1={hmac.digest(SECRET, signed, 'sha256').hex()}"


def prepare(path: Path, count: int, *, url_path: str = "/", body_bytes: int = BODY_BYTES) -> Deck:
    """Write a deck of `count` requests, signed now."""
    now = int(time.time())
    with path.open("wb", buffering=BUFFER_BYTES) as file:
        file.writelines(_request(url_path, now, body_bytes) for _ in range(count))
        file.flush()
        # Written back now, it does not compete later with the fsyncs that are measured.
        os.fsync(file.fileno())
    return Deck(path, count, len(_request(url_path, now, body_bytes)))


def _request(url_path: str, now: int, body_bytes: int) -> bytes:
    body = new_body(now, body_bytes)
    head = HEAD.format(path=url_path, length=len(body), signature=sign(body, now))
    return head.encode() + body
