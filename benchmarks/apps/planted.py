"""A receiver with a bug planted on purpose, for the self-check: the harness must catch each.

`PLANTED_BUG` is one of: `none`, `forgets` (acks an event without storing it), `idles` (never
handles it), `repeats` (runs its handler's effect twice), `errs` (answers 500), each of these for
one event in `PLANTED_EVERY`; `trusts` (verifies nothing), `dies` (exits under load).
"""

import os
import sqlite3

import msgspec

from benchmarks.apps import asgi
from benchmarks.apps.common import directory
from benchmarks.apps.limit import Envelope

BUG = os.environ["PLANTED_BUG"]
EVERY = int(os.environ["PLANTED_EVERY"])
DEADLY_COUNT = 100

database = sqlite3.connect(directory() / "x.db", isolation_level=None)
database.executescript(
    """
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=OFF; -- One in a thousand is to come, on a slow disk as well.
    CREATE TABLE events (id TEXT PRIMARY KEY, handled INTEGER NOT NULL);
    CREATE TABLE effects (event_id TEXT NOT NULL);
    """
)


class Receiver:
    """Stores and handles an event at once, in one go, except for the bug."""

    def __init__(self) -> None:
        self.deliveries = 0

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Answer one delivery."""
        assert scope["type"] == "http"
        body = await asgi.read(receive)
        await send(asgi.start(self._accept(scope, body)))
        await send(asgi.END)

    def _accept(self, scope: asgi.Scope, body: bytes) -> int:
        if BUG != "trusts" and not asgi.is_authentic(scope, body):
            return 400
        self.deliveries += 1
        bug = BUG if self.deliveries % EVERY == 0 else "none"
        if BUG == "dies" and self.deliveries > DEADLY_COUNT:
            os._exit(1)
        if bug == "errs":
            return 500
        if bug != "forgets":
            _store(msgspec.json.decode(body, type=Envelope).id, bug)
        return 204


def _store(event_id: str, bug: str) -> None:
    is_handled = bug != "idles"
    inserted = database.execute(
        "INSERT INTO events VALUES (?, ?) ON CONFLICT DO NOTHING", (event_id, is_handled)
    )
    if inserted.rowcount and is_handled:
        effects = 2 if bug == "repeats" else 1
        database.executemany("INSERT INTO effects VALUES (?)", [(event_id,)] * effects)


app = Receiver()
