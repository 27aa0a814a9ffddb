"""SIGTERM to ``animica-hooks serve``: out within the budget, and nothing lost or counted by it."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from crashkit import MakePlace, Place, head_of, send
from databases import on_every_database

from animica_hooks.testing import make_event

GRACE_S = 1  # for requests
SHUTDOWN_S = 1.0  # for handlers
DATABASE_S = 5  # for a database that does not answer
DISK_S = 0.2  # before a commit and after it
ALLOWED_S = 5.0  # to a busy machine, beyond the budget


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    place = make_place(CRASH_SHUTDOWN_S=str(SHUTDOWN_S))
    place.options = ("--grace", str(GRACE_S))
    return place


@contextmanager
def connected(place: Place) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", place.port), 30) as connection:
        yield connection


def answer(connection: socket.socket) -> int:
    """Return the status of what comes, 0 where the connection ends without."""
    line = connection.makefile("rb").readline()
    return int(line.split()[1]) if line else 0


def event_states(place: Place) -> dict[str, list[str]]:
    """Return the states of each event's jobs."""
    found: dict[str, list[str]] = {}
    for id, state in place.query(
        "SELECT e.id, j.state FROM hooks_events e LEFT JOIN hooks_jobs j ON j.event_seq = e.seq"
    ):
        found.setdefault(id, []).append(state)
    return found


def untouched(place: Place, handler: str) -> bool:
    """Tell whether a handler's only job can run at once, as if it had never been begun."""
    [(due, by, orphaned, attempts, failed)] = place.query(
        "SELECT due_at, leased_by, orphaned, attempts, failed FROM hooks_jobs WHERE handler_id ="
        f" (SELECT id FROM hooks_handlers WHERE name = '{handler}') AND state = 'available'"
    )
    return due <= time.time() * 1e6 and (by, orphaned, attempts, failed) == (None, 0, 0, 0)


def stop(place: Place, budget: float) -> None:
    """Send SIGTERM, and see the server end well and in time."""
    began = time.monotonic()
    code = place.end(place.processes[0], signal.SIGTERM)
    took = time.monotonic() - began

    assert code in (0, -signal.SIGTERM), place.log()
    assert took < budget + ALLOWED_S
    assert "Traceback" not in place.log()


def heard(place: Place) -> None:
    """Have the server answer something else, so that it has read what was sent before."""
    with connected(place) as other:
        other.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert 200 == answer(other)


def test_an_idle_server_ends(place: Place) -> None:
    """With nothing but an idle connection open it ends at once, well within any grace."""
    place.serve()
    with connected(place) as connection:
        body = make_event("order.paid", id="evt_1")
        connection.sendall(head_of(body) + body)
        assert 204 == answer(connection)
        stop(place, 0)
        assert b"" == connection.recv(1000)

    assert {"evt_1"} == set(event_states(place))


def test_a_request_under_way_is_answered(place: Place) -> None:
    """A body that is still arriving at SIGTERM is refused for now, with an answer that says so."""
    place.serve()
    body = make_event("order.paid", id="evt_1")
    with connected(place) as connection:
        connection.sendall(head_of(body) + body[:10])
        heard(place)
        process = place.processes[0]
        process.send_signal(signal.SIGTERM)
        place.wait(lambda: not place.listens(), "the server to stop listening")
        connection.sendall(body[10:])
        assert 503 == answer(connection)
    assert place.ended(process) in (0, -signal.SIGTERM), place.log()

    assert {} == event_states(place)


def test_new_connections_are_refused(place: Place) -> None:
    """While a request keeps the server a little longer nobody else gets in."""
    place.serve()
    body = make_event("order.paid", id="evt_1")
    with connected(place) as connection:
        connection.sendall(head_of(body) + body[:10])
        heard(place)
        process = place.processes[0]
        process.send_signal(signal.SIGTERM)
        place.wait(lambda: not place.listens(), "the server to stop listening")
        assert process.poll() is None
    assert place.ended(process) in (0, -signal.SIGTERM), place.log()
    assert {} == event_states(place)


def test_a_stuck_body_does_not_hold_it(place: Place) -> None:
    """A client that never sends the rest of its body does not keep the server past its grace."""
    place.serve()
    body = make_event("order.paid", id="evt_1")
    with connected(place) as connection:
        connection.sendall(head_of(body) + body[:10])
        heard(place)
        stop(place, GRACE_S)

    assert {} == event_states(place)


@on_every_database
def test_a_short_handler_may_end(place: Place) -> None:
    """A handler that ends within the time for the shutdown ends, and is done."""
    place.serve()
    send(place.port, make_event("hang.coroutine", {"seconds": 0.5}, id="evt_1"))
    place.wait(lambda: place.noted("hanging"), "the handler to begin")
    stop(place, SHUTDOWN_S)

    assert {"evt_1": ["succeeded"]} == event_states(place)
    assert ["evt_1"] == place.effects("hang.coroutine")


@on_every_database
@pytest.mark.parametrize("handler", ["hang.coroutine", "hang.plain"])
def test_a_long_handler_is_broken_off(place: Place, handler: str) -> None:
    """One that does not is broken off, its job as if never begun, and it runs after the restart."""
    place.serve()
    send(place.port, make_event(handler, id="evt_1"))
    place.wait(lambda: place.noted("hanging"), "the handler to begin")
    stop(place, SHUTDOWN_S)

    assert untouched(place, handler)
    place.serve()
    place.wait(lambda: len(place.noted("hanging")) == 2, "it to run again", seconds=10)


def test_a_handler_that_hangs_in_its_transaction_is_left(place: Place) -> None:
    """Though it holds the database's write slot the process ends; the job runs again elsewhere."""
    place.serve()
    send(place.port, make_event("hang.writer", id="evt_1"))
    place.wait(lambda: place.noted("hanging"), "the handler to begin")
    stop(place, SHUTDOWN_S + DATABASE_S)

    assert [] == place.effects("hang.writer")
    place.serve()
    place.wait(lambda: len(place.noted("hanging")) == 2, "it to run again", seconds=15)


@on_every_database
def test_queued_jobs_are_given_back(place: Place) -> None:
    """What waited for a slot is free for the next process at once, and all of it is handled."""
    place.environment["CRASH_WORK_S"] = "0.05"
    # Where commits take long one is under way at any time, with marks, or a claim.
    place.serve(CRASH_DISK_S=str(DISK_S))
    ids = [f"evt_{n}" for n in range(20)]
    send(place.port, *[make_event("order.paid", id=id) for id in ids])
    stop(place, SHUTDOWN_S + 2 * DISK_S)

    assert 0 == place.query("SELECT count(*) FROM hooks_jobs WHERE state = 'leased'")[0][0]
    assert place.to_run() > 0
    place.serve()
    place.wait(lambda: place.to_run() == 0, "the rest to be handled")
    assert ids == sorted(place.effects("coroutine"), key=lambda id: int(id[4:]))
    assert "lost" not in place.log()
