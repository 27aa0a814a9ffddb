"""Order within a key, and limits, by several processes that fail and die; and rolling deploys."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from databases import DATABASES, SERVERS, new_database
from dispatchkit import (
    FULL,
    MakeBench,
    all_jobs,
    deliver,
    make_hooks,
    settled,
    until,
)

from animica_hooks import Event, Hooks, RetryPolicy, Router
from animica_hooks import runtime as runtime_module
from animica_hooks.errors import HandlerInUse

HERE = Path(__file__).resolve().parent
PATIENCE_S = 90.0


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind that no other test uses."""
    if request.param in SERVERS:
        with new_database(request.param) as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path / 'order.db'}"


class Workers:
    """Processes that run an app's handlers; those that die are started again."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.deaths = 0
        self._environment = {
            **os.environ,
            "ANIMICA_HOOKS_DATABASE_URL": database_url,
            "ORDER_FOLDER": str(folder),
        }
        self._running: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def start(self, where: Path = HERE, app: str = "order_app") -> "subprocess.Popen[bytes]":
        path = os.pathsep.join([str(where), *sys.path])
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "animica_hooks", "worker", f"{app}:hooks"],
                env={**self._environment, "PYTHONPATH": path},
                stderr=log,
                cwd=self.folder,
            )
        self._running.append((where, process))
        return process

    def revive(self) -> None:
        for where, process in list(self._running):
            if process.poll() is not None:
                self._running.remove((where, process))
                self.deaths += 1
                self.start(where)

    def stop(self) -> None:
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            process.wait(20)
        self._running.clear()

    def notes(self) -> list[list[str]]:
        notes = self.folder / "notes"
        return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


@pytest.fixture
def workers(database_url: str, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(database_url, tmp_path)
    yield workers
    workers.stop()


@pytest.fixture
async def receiver(database_url: str, tmp_path: Path) -> AsyncIterator[Hooks]:
    """An app that only receives, and does not have the handlers' code."""
    hooks = make_hooks(database_url, dispatch=False, auto_migrate=True)
    async with hooks.lifespan():
        yield hooks


async def done(hooks: Hooks, workers: Workers, count: int) -> None:
    """Wait until so many jobs have succeeded, starting what dies again."""
    async with asyncio.timeout(PATIENCE_S):
        while len(await all_jobs(hooks, states=["succeeded"])) < count:
            workers.revive()
            await asyncio.sleep(0.1)


def overtakings(notes: list[list[str]]) -> list[tuple[str, int]]:
    """Return the begins of each key that another was in front of, or at the same time as."""
    ended: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    for what, key, number in notes:
        n, before = int(number), ended.get(key, -1)
        if what == "begin" and n not in (before, before + 1):
            found.append((key, n))  # it may begin again after its end was noted, not stored
        elif what == "end":
            ended[key] = max(before, n)
    return found


def test_the_account_sees_overtaking() -> None:
    """What takes the account below is able to fail."""
    fine = [["begin", "a", "0"], ["begin", "a", "0"], ["end", "a", "0"], ["begin", "a", "1"]]
    assert [] == overtakings(fine)
    assert [("a", 1)] == overtakings([["begin", "a", "0"], ["begin", "a", "1"]])
    assert [("a", 0)] == overtakings([*fine, ["end", "a", "1"], ["begin", "a", "0"]])


async def test_nobody_overtakes(
    receiver: Hooks, workers: Workers, database_url: str, tmp_path: Path
) -> None:
    """Of each key in order, through failed attempts and deaths of three processes."""
    keys, each = 4, 60 if FULL else 20
    workers.start()
    await until(lambda: _knows(receiver, "steps"))
    for _ in range(2):
        workers.start()
    # Events come by turns to a receiver that has the handler's code and to one that has not.
    knowing = make_hooks(database_url, dispatch=False)
    knowing.on("step", name="steps", key=lambda event: event.data["key"])(lambda event: None)
    async with knowing.lifespan():
        for n in range(each):
            for key in range(keys):
                hooks = knowing if n % 4 else receiver
                await deliver(hooks, f"evt_{key}_{n}", type="step", data={"key": key, "n": n})

    await done(receiver, workers, keys * each)

    notes = workers.notes()
    assert [] == overtakings(notes)
    ends = {(key, n) for what, key, n in notes if what == "end"}
    assert {(str(key), str(n)) for key in range(keys) for n in range(each)} == ends
    assert len(notes) > 2 * keys * each  # some were tried again


async def _knows(hooks: Hooks, name: str) -> bool:
    """Tell whether a receiver makes jobs for a handler by now."""
    return any(view.name == name for view in await hooks.recorded_handlers()) and any(
        record.name == name
        for record in hooks._runtime._recorded  # type: ignore[union-attr]
    )


async def test_concurrency_holds_across_processes(receiver: Hooks, workers: Workers) -> None:
    """At no moment more attempts than allowed run in all processes together."""
    workers.start()
    await until(lambda: _knows(receiver, "limited"))
    for _ in range(2):
        workers.start()
    await deliver(receiver, *[f"evt_{n}" for n in range(40)], type="limited")
    await done(receiver, workers, 40)

    running = most = 0
    for what, _ in workers.notes():
        running += {"enter": 1, "leave": -1}[what]
        most = max(most, running)
    assert 2 == most


# Pauses


async def test_a_paused_handler_waits(tmp_path: Path) -> None:
    """Nothing of it begins, in any process; what was held is given back; it outlasts a restart."""
    begun: list[str] = []
    gate = asyncio.Event()

    def app(**options: Any) -> Hooks:
        hooks = make_hooks(f"sqlite:///{tmp_path / 'hooks.db'}", **options)

        @hooks.on("*", name="slow")
        async def slow(event: Event) -> None:
            begun.append(event.id)
            await gate.wait()

        return hooks

    hooks, other = app(concurrency=1), app(dispatch=False)
    async with hooks.lifespan(), other.lifespan():
        await deliver(hooks, "evt_1", "evt_2")
        await until(lambda: begun == ["evt_1"])

        assert await other.pause("slow")

        async def given_back() -> bool:
            return 1 == len(await all_jobs(hooks, states=["available"]))

        await until(given_back)
        await until(lambda: hooks._runtime._recorded[0].paused)  # type: ignore[union-attr]
        await deliver(hooks, "evt_3")
        gate.set()
        await until(lambda: _ended(hooks, 1))
    async with hooks.lifespan():
        await asyncio.sleep(0)
        assert ["evt_1"] == begun
        [view] = await hooks.recorded_handlers()
        assert (2, 0) == (view.waiting, view.leased)
        assert view.paused_at is not None
        assert await hooks.resume("slow")
        await settled(hooks)
    assert ["evt_1", "evt_2", "evt_3"] == begun


async def _ended(hooks: Hooks, count: int) -> bool:
    return len(await all_jobs(hooks, states=["succeeded"])) == count


async def test_handlers_of_newer_processes_get_jobs_from_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that runs already makes the jobs of a handler that starts later."""
    monkeypatch.setattr(runtime_module, "REFRESH_S", 0.02)
    seen: list[str] = []
    older = make_hooks(f"sqlite:///{tmp_path / 'hooks.db'}", dispatch=False)
    newer = make_hooks(f"sqlite:///{tmp_path / 'hooks.db'}")
    newer.on("*", name="new", key=lambda event: "k")(lambda event: seen.append(event.id))
    async with older.lifespan():
        await deliver(older, "evt_1")
        async with newer.lifespan():
            await until(lambda: _knows(older, "new"))
            await deliver(older, "evt_2", "evt_3")
            await until(lambda: seen == ["evt_2", "evt_3"])
            [job] = await all_jobs(newer, event_id="evt_2")
            assert "k" == job.key


async def test_a_receiver_notes_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process goes on to note that it has its handlers."""
    monkeypatch.setattr(runtime_module, "REFRESH_S", 0.02)
    monkeypatch.setattr(runtime_module, "RENEW_S", 0.02)
    hooks = make_hooks(f"sqlite:///{tmp_path / 'hooks.db'}")
    hooks.on("*", name="mine")(lambda event: None)
    async with hooks.lifespan():
        [at_first] = await hooks.recorded_handlers()

        async def renewed() -> bool:
            [now] = await hooks.recorded_handlers()
            return now.seen_at > at_first.seen_at

        await until(renewed)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose processes look, and note that they live, many times a second."""
    monkeypatch.setattr(runtime_module, "REFRESH_S", 0.02)
    monkeypatch.setattr(runtime_module, "RENEW_S", 0.02)
    return f"sqlite:///{tmp_path / 'hooks.db'}"


def _app(url: str, name: str, **options: Any) -> Hooks:
    """An app with one handler, which takes every event."""
    hooks = make_hooks(url, **options)
    hooks.on("*", name=name)(lambda event: None)
    return hooks


def _age(url: str, name: str) -> None:
    """Make a handler one that no process has had for a minute."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(
            "UPDATE hooks_handlers SET seen_at = seen_at - 61000000 WHERE name = ?", [name]
        )


async def test_a_start_warns_of_jobs_that_nobody_has_code_for(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They wait, are shown, and never die; their handler is named, their number, and what to do."""
    gone = _app(url, "it's gone", dispatch=False)
    async with gone.lifespan():
        await deliver(gone, "evt_1", "evt_2")
    _age(url, "it's gone")
    left = _app(url, "left")
    async with left.lifespan():
        [warning] = caplog.messages  # with the start
        await deliver(left, "evt_3")
        await asyncio.sleep(0.2)
        ended = [(job.handler, job.state, job.attempts) for job in await all_jobs(left)]
        assert [("it's gone", "available", 0)] * 3 == [job for job in ended if job[0] != "left"]
        [view, _] = await left.recorded_handlers()
        assert 3 == view.waiting
    assert "the handler it's gone, and its jobs wait (2 so far)" in warning
    assert 'aliases=["it\'s gone"]' in warning
    assert "handlers remove 'it'\"'\"'s gone'" in warning
    assert [warning] == caplog.messages  # once
    assert await left.remove_handler("it's gone") == 3


async def test_a_renamed_handler_is_one_handler_to_old_and_new_processes(url: str) -> None:
    """Whichever starts last: each event is handled once, and by whoever receives it."""
    ran: list[tuple[str, str]] = []

    def app(release: str, name: str, *aliases: str) -> Hooks:
        hooks = make_hooks(url)

        @hooks.on("*", name=name, aliases=list(aliases))
        async def note(event: Event) -> None:
            ran.append((release, event.id))

        return hooks

    old, new, again = app("old", "a"), app("new", "b", "a"), app("again", "a")
    async with old.lifespan():
        await deliver(old, "evt_1")
        async with new.lifespan(), again.lifespan():
            for hooks in (old, new, again):
                assert hooks._runtime
                await hooks._runtime.refresh()
            for n, hooks in enumerate((old, new, again), 2):
                await deliver(hooks, f"evt_{n}")
            await settled(new)
            assert 4 == (await again.plan_replay(all=True)).count  # what it calls by another name
    assert [("old", "evt_1"), ("old", "evt_2"), ("new", "evt_3"), ("again", "evt_4")] == sorted(
        ran, key=lambda one: one[1]
    )


async def test_a_handler_that_runs_is_not_removed(url: str) -> None:
    """It is refused with what to do, also where it is this process that has it; it goes on."""
    app = _app(url, "mine")
    async with app.lifespan():
        with pytest.raises(HandlerInUse, match="a process that runs has the handler mine"):
            await app.remove_handler("mine")
        await deliver(app, "evt_1")
        await settled(app)
        assert ["succeeded"] == [job.state for job in await all_jobs(app)]
        assert await app.remove_handler("unheard of") is None


async def test_a_handler_that_goes_after_the_start_is_warned_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart is quicker than its predecessor is found to be gone: that is told later."""
    async with _app(url, "old").lifespan():
        pass
    async with _app(url, "new").lifespan():
        await asyncio.sleep(0.1)
        assert [] == caplog.messages
        await asyncio.to_thread(_age, url, "old")  # the app may be writing, in this loop
        await until(lambda: bool(caplog.messages))
    assert "no process that runs has the handler old," in caplog.text


async def test_a_handler_of_another_process_that_lives_is_no_alarm(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a rolling deploy nor where several apps share a database."""
    other = _app(url, "other", dispatch=False)
    async with other.lifespan():
        await asyncio.to_thread(_age, url, "other")

        async def renewed() -> bool:
            [view] = await other.recorded_handlers()
            return (datetime.now(UTC) - view.seen_at).total_seconds() < 60

        await until(renewed)
        async with _app(url, "mine").lifespan():
            await deliver(other, "evt_1")
            await asyncio.sleep(0.1)
    assert [] == caplog.messages


# Rolling deploys

OLD = """
from animica_hooks import Event, Hooks
hooks = Hooks(routers=[])

@hooks.on("kept", name="old.name")
def kept(event: Event) -> None:
    from order_notes import note
    note("old", event.id)

@hooks.on("dropped", name="dropped")
def dropped(event: Event) -> None: ...
"""
NEW = """
from animica_hooks import Event, Hooks
hooks = Hooks(routers=[])

@hooks.on("kept", name="new.name", aliases=["old.name"])
def kept(event: Event) -> None:
    from order_notes import note
    note("new", event.id)

@hooks.on("added", name="added", key=lambda event: event.data["key"])
def added(event: Event) -> None:
    from order_notes import note
    note("added", event.id)
"""
NOTES = """
import os
def note(*words):
    with open(os.environ["ORDER_FOLDER"] + "/notes", "ab", buffering=0) as notes:
        notes.write((" ".join(words) + "\\n").encode())
"""


async def test_old_and_new_code_side_by_side(
    receiver: Hooks, workers: Workers, tmp_path: Path
) -> None:
    """Nothing is lost or dies: renamed handlers go on, new ones begin, those without code wait."""
    for name, app in (("v1", OLD), ("v2", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "order_app.py").write_text(app)
        (tmp_path / name / "order_notes.py").write_text(NOTES)
    old = workers.start(tmp_path / "v1")
    await until(lambda: _knows(receiver, "old.name"))
    await deliver(receiver, "evt_1", type="kept")
    await done(receiver, workers, 1)
    workers.start(tmp_path / "v2")
    await until(lambda: _knows(receiver, "added"))
    await deliver(receiver, "evt_2", "evt_3", type="kept")
    await deliver(receiver, "evt_4", "evt_5", type="added", data={"key": "k"})
    await done(receiver, workers, 5)
    old.terminate()
    assert 0 == old.wait(20)
    workers._running.pop(0)
    await deliver(receiver, "evt_6", type="dropped")
    await deliver(receiver, "evt_7", type="kept")
    await done(receiver, workers, 6)

    notes = workers.notes()
    assert {f"evt_{n}" for n in (1, 2, 3, 4, 5, 7)} == {id for _, id in notes}
    assert 6 == len(notes)
    assert [["added", "evt_4"], ["added", "evt_5"]] == [n for n in notes if n[0] == "added"]
    [waiting] = await all_jobs(receiver, event_id="evt_6")
    assert ("available", "dropped") == (waiting.state, waiting.handler)
    names = [view.name for view in await receiver.recorded_handlers()]
    assert ["added", "dropped", "new.name"] == names


# Pace and fairness


async def test_a_line_goes_on_promptly(
    start_bench: MakeBench, router: Router, no_poll: None
) -> None:
    """The next job of a key begins when the one before has ended, and not at the next poll."""
    hooks_ran: list[str] = []

    @router.on("*", name="one", key=lambda event: "k")
    async def one(event: Event) -> None:
        hooks_ran.append(event.id)

    bench = await start_bench(router)
    await bench.deliver_in_line(*[f"evt_{n:03}" for n in range(50)])
    await until(lambda: len(hooks_ran) == 50)
    assert sorted(hooks_ran) == hooks_ran


async def test_a_failing_key_stops_no_other(start_bench: MakeBench, router: Router) -> None:
    """A key that fails for ever holds up itself only; nor does a slow handler others."""
    ran: list[str] = []
    hang = asyncio.Event()

    @router.on("step", name="steps", key=lambda event: event.data["key"])
    async def steps(event: Event) -> None:
        if event.data["key"] == "bad":
            raise ValueError("never")
        ran.append(event.id)

    @router.on("slow", name="slow")
    async def slow(event: Event) -> None:
        await hang.wait()

    retry = RetryPolicy(max_attempts=10_000, base=0)
    bench = await start_bench(router, retry=retry, concurrency=8)
    await bench.deliver(*[f"slow_{n}" for n in range(200)], type="slow")
    await bench.deliver_in_line("bad_1", "bad_2", type="step", data={"key": "bad"})
    await bench.deliver_in_line(*[f"evt_{n}" for n in range(10)], type="step", data={"key": "a"})
    await until(lambda: len(ran) == 10)
    assert [f"evt_{n}" for n in range(10)] == ran
    hang.set()
