"""Asks a server the questions whose answers make its speed comparable, before any load."""

import http.client
import time
from contextlib import closing

from benchmarks.deck import new_body, sign
from benchmarks.server import Server

TIMEOUT_SECONDS = 10
STALE_SECONDS = 3600
# The probes deliver one good event, twice.
EVENTS = 1


def find_faults(server: Server) -> list[str]:
    """Return what the server does wrong with good, repeated, forged and stale deliveries."""
    now = int(time.time())
    body = new_body(now)
    signature = sign(body, now)
    forged = body.replace(b"4200", b"9200")
    stale = now - STALE_SECONDS
    answers = [
        ("refused an authentic event", _post(server, body, signature) < 300),
        ("refused a repeated event", _post(server, body, signature) < 300),
        ("accepted a forged event", 400 <= _post(server, forged, signature) < 500),
        ("accepted a stale event", 400 <= _post(server, body, sign(body, stale)) < 500),
    ]
    faults = [fault for fault, is_right in answers if not is_right]
    ledger = server.contestant.ledger
    if ledger is not None and server.contestant.deduplicates:
        stored = ledger.count(server.directory).stored
        if stored != EVENTS:
            faults.append(f"stored {stored} events where {EVENTS} was due")
    return faults


def _post(server: Server, body: bytes, signature: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json", "X-Animica-Signature": signature}
    with closing(connection):
        connection.request("POST", server.contestant.path, body, headers)
        return connection.getresponse().status
