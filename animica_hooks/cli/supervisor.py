"""Several server processes on one port, and the one that looks after them.

Rule 1: the supervisor imports no app and opens no database: what it forks starts afresh.
Rule 2: the first process starts alone. What keeps it from starting is told once and ends all; and
        it has brought the schema up to date when the others come.
Rule 3: where the kernel can, it deals out connections: each process listens for itself at the one
        port. A listener that all shared would leave most of a burst to whoever is quickest.
Rule 4: a process that dies is replaced; one that dies again and again less and less often.
Rule 5: no process outlives its supervisor by more than its draining.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

QUICK_DEATH_S = 10.0  # a process that lived no longer is replaced only after a while
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Sockets = list[socket.socket]


@dataclass(frozen=True, slots=True)
class Forked:
    """What a server process gets of its supervisor.

    Attributes:
        sockets: to listen at.
    """

    sockets: Sockets
    _started: int

    def started(self) -> None:
        """Tell the supervisor that requests are answered."""
        os.write(self._started, b"1")
        os.close(self._started)


@dataclass(slots=True)
class _Place:
    """One of the processes, and those that took its place."""

    pid: int = 0
    starting: int | None = None  # the pipe by which it tells that it has started
    began: float = 0.0
    pause: float = 0.0
    due: float = 0.0  # when it is to be started


class Supervisor:
    """Keeps a number of processes running until a signal.

    Args:
        listen: returns the sockets for one more process.
        on_start: called when the first has started.
    """

    def __init__(
        self, number: int, listen: Callable[[], Sockets], *, on_start: Callable[[], None]
    ) -> None:
        self._listen = listen
        self._on_start = on_start
        self._places = [_Place(due=0.0 if n == 0 else float("inf")) for n in range(number)]
        self._first_started = False
        self._stopping = False
        self._code = 0
        self._signals, wake = os.pipe()
        os.set_blocking(wake, False)
        self._wake = wake
        self._alive, self._lives = os.pipe()  # its end tells the processes that we are gone

    def run(self) -> Forked:
        """Look after the processes; return only in each of them.

        Raises:
            SystemExit: all have ended.
        """
        before = self._catch_signals()
        while not self._is_over():
            for place in self._due():
                if (fork := self._start(place, before)) is not None:
                    return fork
            self._wait()
        sys.exit(self._code)

    def _catch_signals(self) -> dict[int, Any]:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        before: dict[int, Any] = {}
        for number in (*_SIGNALS, signal.SIGCHLD):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
                before[number] = signal.signal(number, lambda *_: None)
        return before

    def _is_over(self) -> bool:
        return self._stopping and not any(place.pid for place in self._places)

    def _due(self) -> Sequence[_Place]:
        now = time.monotonic()
        return [p for p in self._places if not (p.pid or self._stopping) and p.due <= now]

    def _start(self, place: _Place, before: dict[int, Any]) -> Forked | None:
        sockets = self._listen()
        started, tell = os.pipe()
        place.began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # or the new one could miss one
        place.pid = os.fork()
        if place.pid == 0:
            os.close(started)
            self._leave(before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return Forked(sockets, tell)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(tell)
        place.starting = started
        for one in sockets:
            one.close()
        return None

    def _leave(self, before: dict[int, Any]) -> None:
        """Become one of the processes: give back what is the supervisor's."""
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        for descriptor in (self._signals, self._wake, self._lives):
            os.close(descriptor)
        for place in self._places:
            if place.starting is not None:
                os.close(place.starting)
        threading.Thread(target=_end_with, args=(self._alive,), daemon=True).start()

    def _wait(self) -> None:
        """Wait for a signal, a process that has started, or the time to start one."""
        now = time.monotonic()
        due = [p.due for p in self._places if not p.pid]
        pause = None if self._stopping or not due else max(min(due) - now, 0)
        if pause == float("inf"):
            pause = None
        starting = {p.starting: p for p in self._places if p.starting is not None}
        ready, _, _ = select.select([self._signals, *starting], [], [], pause)
        for descriptor in ready:
            if descriptor == self._signals:
                for number in os.read(self._signals, 64):
                    if number in _SIGNALS:
                        self._stop(number)
            else:
                self._started(starting[descriptor])
        self._bury()

    def _started(self, place: _Place) -> None:
        assert place.starting is not None
        if os.read(place.starting, 1) and not self._first_started:
            self._first_started = True
            self._on_start()
            for other in self._places:
                other.due = 0.0
        os.close(place.starting)
        place.starting = None

    def _stop(self, number: int) -> None:
        """Have all end; a second SIGINT makes them hurry."""
        hurry = self._stopping and number == signal.SIGINT
        self._stopping = True
        for place in self._places:
            if place.pid:
                # Not SIGINT at first: a terminal has sent them one already, and two are a hurry.
                os.kill(place.pid, signal.SIGINT if hurry else signal.SIGTERM)

    def _bury(self) -> None:
        """Note which processes have ended."""
        for place in self._places:
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if not pid:
                continue
            place.pid = 0
            if place.starting is not None:
                self._started(place)
            self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: _Place, code: int) -> None:
        if self._stopping and -code in _SIGNALS:
            return  # it had not started
        if self._stopping or not self._first_started:
            self._stopping = True
            self._code = self._code or (code if code >= 0 else 1)
            if code < 0:
                click.echo(f"error: a server process ended by {_name(-code)}", err=True)
            return
        lived = time.monotonic() - place.began
        place.pause = min(max(2 * place.pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        if lived > QUICK_DEATH_S:
            place.pause = 0.0
        place.due = time.monotonic() + place.pause
        how = f"by {_name(-code)}" if code < 0 else f"with exit code {code}"
        when = f"in {place.pause:g} s" if place.pause else "now"
        click.echo(f"a server process ended {how}: another is started {when}", err=True)


def _end_with(alive: int) -> None:
    """End as at SIGTERM when the supervisor is gone."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
