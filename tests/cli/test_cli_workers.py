"""``serve --workers``: several processes on one port, and the one that looks after them."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from clikit import PATIENCE_S, Process, body_of, head, read_answer, status_of, wait_for

from animica_hooks.cli import supervisor
from animica_hooks.cli.supervisor import Supervisor

APP = """
import os
from pathlib import Path

from animica_hooks import Event, Hooks

hooks = Hooks(routers=[])


@hooks.on("*", name="note")
async def note(event: Event) -> None:
    with Path("handled").open("a") as file:
        file.write(f"{os.getpid()} {event.id}\\n")
"""


@pytest.fixture
def crew(here: Path) -> Any:
    (here / "noting.py").write_text(APP)
    with Process("serve", "noting:hooks", "--workers", "3", "--port", "0", cwd=here) as running:
        wait_for(lambda: len(children(running)) == 3, "all have been started")
        yield running
        for child in children(running):
            os.kill(child, signal.SIGKILL)


def children(process: Process) -> list[int]:
    pid = process.popen.pid
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in listed.split()]


def deliver(process: Process, id: str) -> int:
    """Deliver an event over a connection of its own; 0 where the connection breaks."""
    body = body_of(id, "order.paid")
    try:
        with process.connect() as connection:
            connection.sendall(head(body) + body)
            return status_of(read_answer(connection))
    except (OSError, AssertionError):
        return 0


def insist(process: Process, id: str) -> None:
    wait_for(lambda: deliver(process, id) == 204, f"{id} is taken")


def handled(here: Path) -> list[list[str]]:
    file = here / "handled"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_each_process_receives_and_handles(crew: Process, here: Path) -> None:
    """Connections are dealt out, and each event is handled once by one of the processes."""
    ids: list[str] = []

    def each_has_handled() -> bool:
        ids.append(f"evt_{len(ids)}")
        insist(crew, ids[-1])
        return len({pid for pid, _ in handled(here)}) == 3

    wait_for(each_has_handled, "each of them to handle something")
    wait_for(lambda: len(handled(here)) >= len(ids), "all are handled")
    assert sorted(ids) == sorted(id for _, id in handled(here))
    assert {str(child) for child in children(crew)} == {pid for pid, _ in handled(here)}
    assert 1 == crew.said().count("receiving at")
    assert "in 3 processes" in crew.said()


def test_a_process_that_dies_is_replaced(crew: Process) -> None:
    """It is told of, the others go on receiving, and there are as many as before."""
    before = children(crew)
    os.kill(before[1], signal.SIGKILL)
    insist(crew, "evt_1")

    wait_for(lambda: len(set(children(crew)) - set(before)) == 1, "another is started")
    assert "a server process ended by SIGKILL: another is started" in crew.said()
    assert crew.popen.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_them_all(crew: Process, number: signal.Signals) -> None:
    """What the supervisor is told all of them are, and it exits with 0 when they have ended."""
    insist(crew, "evt_1")
    pids = children(crew)
    code, seconds = crew.stop(number)

    assert 0 == code, crew.said()
    assert seconds < 10
    assert [] == [pid for pid in pids if is_alive(pid)]
    assert "Traceback" not in crew.said()


def test_a_second_sigint_makes_them_hurry(crew: Process) -> None:
    """A body that never ends holds them for their grace; a second SIGINT does not wait for it."""
    body = body_of("evt_1", "order.paid")
    with crew.connect() as connection:
        connection.sendall(head(body) + body[:10])
        insist(crew, "evt_2")
        crew.popen.send_signal(signal.SIGINT)
        wait_for(lambda: len(children(crew)) == 1, "the others end")
        code, seconds = crew.stop(signal.SIGINT)
    assert 0 == code, crew.said()
    assert seconds < 3


def test_processes_end_without_their_supervisor(crew: Process) -> None:
    """When it is killed they drain and end, and the port is free."""
    insist(crew, "evt_1")
    pids = children(crew)
    crew.popen.kill()
    crew.popen.wait(PATIENCE_S)

    wait_for(lambda: not any(is_alive(pid) for pid in pids), "all end")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("app", [[], ["shop:hooks"]], ids=["without app", "with app"])
def test_what_keeps_them_from_starting_is_told_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, app: list[str]
) -> None:
    """One line and exit code 2, as of a single process, and nothing is tried again."""
    monkeypatch.delenv("ANIMICA_HOOKS_SIGNING_SECRET")
    with Process("serve", *app, "--workers", "3", "--port", "0", cwd=here) as process:
        assert 2 == process.popen.wait(PATIENCE_S)
        assert 1 == process.said().count("\n"), process.said()
        assert process.said().startswith("error: there is no signing secret")


def test_a_port_that_others_share_is_taken(crew: Process, here: Path) -> None:
    """A second supervisor does not slip in beside the first, which the kernel would let it."""
    port = str(crew.port())
    with Process("serve", "noting:hooks", "--workers", "2", "--port", port, cwd=here) as second:
        assert 2 == second.popen.wait(PATIENCE_S)
        assert f"error: port {port} of 127.0.0.1 is taken" in second.said()


def test_one_that_dies_again_and_again_is_replaced_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pauses double up to half a minute, and one that has lived for a while is forgiven."""
    now = 1000.0
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    crew = Supervisor(1, list, on_start=lambda: None)
    crew._first_started = True
    [place] = crew._places
    pauses = []
    for _ in range(8):
        place.began = now
        crew._ended(place, -signal.SIGSEGV)
        pauses.append(place.due - now)
    assert [0.5, 1, 2, 4, 8, 16, 30, 30] == pauses
    now += 11
    crew._ended(place, 1)
    assert now == place.due
    said = capsys.readouterr().err.splitlines()
    assert "a server process ended by SIGSEGV: another is started in 0.5 s" == said[0]
    assert "a server process ended with exit code 1: another is started now" == said[-1]
