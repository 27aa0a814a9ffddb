"""``serve``, ``worker`` and ``trigger``: what they receive, handle and send, and how they end."""

import json
import logging
import re
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from clikit import Process, body_of, stock, wait_for

from animica_hooks.cli.apps import hooks_in, load_hooks

Command = Callable[..., Result]


@pytest.fixture
def receiver(here: Path) -> Iterator[Process]:
    """A receiver without an app, which prints JSON."""
    with Process("serve", "--port", "0", "--json", cwd=here) as running:
        running.port()
        yield running


def url_of(receiver: Process) -> str:
    return f"http://127.0.0.1:{receiver.port()}/"


def printed(receiver: Process) -> list[dict[str, object]]:
    return [json.loads(line) for line in receiver.said().splitlines() if line.startswith("{")]


def test_what_is_triggered_is_received_and_printed(command: Command, receiver: Process) -> None:
    """An event with data of one's own arrives in a receiver without an app, once."""
    data = '{"note": "\x9b1m é", "n": [1, null]}'
    result = command(
        "trigger", "order.paid", "--data", data, "--to", url_of(receiver), "--duplicate", "--json"
    )
    assert 0 == result.exit_code, result.stderr
    sent = [json.loads(line) for line in result.stdout.splitlines()]
    assert [204, 204] == [delivery["status"] for delivery in sent]
    (event,) = wait_for(lambda: printed(receiver), "it is printed")
    assert (sent[0]["id"], "order.paid", json.loads(data)) == (
        event["id"],
        event["type"],
        event["data"],
    )
    assert re.fullmatch("evt_[0-9a-f]{24}", str(event["id"]))
    assert receiver.said().isascii()
    stored = json.loads(command("events", "list", "--json").stdout)
    assert (event["id"], 2) == (stored["id"], stored["deliveries"])


def test_a_receiver_without_an_app_leaves_no_handler_behind(
    command: Command, receiver: Process
) -> None:
    """The app that has the database next makes no jobs that nobody would ever run."""
    assert "animica-hooks.serve" in command("handlers", "list").stdout
    assert 0 == receiver.stop()[0], receiver.said()
    assert "animica-hooks.serve" not in command("handlers", "list").stdout


def test_a_tampered_event_is_refused_as_expected(command: Command, receiver: Process) -> None:
    """--tamper expects 400: it exits with 0 for it, and nothing is stored."""
    result = command("trigger", "order.paid", "--tamper", "--to", url_of(receiver))
    assert (0, True) == (result.exit_code, ": 400 in " in result.stdout)
    assert "no events\n" == command("events", "list").stdout


def test_another_answer_than_expected_exits_with_1(command: Command, receiver: Process) -> None:
    """A wrong secret is refused, and a good event is not what --tamper expects of /health/live."""
    wrong = command(
        "trigger", "order.paid", "--to", url_of(receiver), "--secret", "whsec_another_one_of_these"
    )
    assert 1 == wrong.exit_code
    assert "400" in wrong.stdout
    elsewhere = command("trigger", "order.paid", "--tamper", "--to", f"{url_of(receiver)}health")
    assert 1 == elsewhere.exit_code
    assert "405" in elsewhere.stdout


def test_many_are_summed_up(command: Command, receiver: Process) -> None:
    """--count sends events of different ids over one connection, with made-up data."""
    result = command("trigger", "payment.succeeded", "--count", "40", "--to", url_of(receiver))
    assert 0 == result.exit_code, result.output
    assert result.stdout.startswith("40 deliveries, 40 answered as expected; p50 ")
    events = wait_for(lambda: len(printed(receiver)) == 40 and printed(receiver), "all are printed")
    assert 40 == len({event["id"] for event in events})
    assert all("amount" in event["data"] for event in events)


def test_data_comes_from_a_file_or_the_input(
    command: Command, receiver: Process, here: Path
) -> None:
    """@file and - are read."""
    (here / "data.json").write_text('{"from": "file"}')
    options = ("--to", url_of(receiver), "--id")
    assert 0 == command("trigger", "a", "--data", "@data.json", *options, "evt_a").exit_code
    result = command("trigger", "b", "--data", "-", *options, "evt_b", stdin='{"from": "input"}')
    assert 0 == result.exit_code
    wait_for(lambda: len(printed(receiver)) == 2, "both are printed")
    found = {event["id"]: event["data"] for event in printed(receiver)}
    assert {"evt_a": {"from": "file"}, "evt_b": {"from": "input"}} == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "{"], "not JSON"),
        (["--data", "@nowhere.json"], "can not be read"),
        (["--data", "[" * 100_000], "not JSON"),
        (["--to", "ftp://host/"], "not a URL"),
        (["--to", "http://host:port/"], "not a URL"),
        (["--secret", "short"], "signing_secret"),
        (["--id", "evt_1", "--count", "2"], "--id"),
        (["--count", "0"], "--count"),
    ],
)
def test_wrong_use_of_trigger_exits_with_2(command: Command, options: list[str], said: str) -> None:
    """What can not be sent is said before anything is."""
    result = command("trigger", "order.paid", *options)
    assert 2 == result.exit_code
    assert said in result.stderr


def test_nobody_at_the_address_is_one_line(command: Command) -> None:
    """A receiver that is not there exits with 1."""
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    result = command("trigger", "order.paid", "--to", f"http://127.0.0.1:{port}/")
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith("error: there was no answer from ")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shop", "module:attribute"),
        ("shop:", "module:attribute"),
        (":hooks", "module:attribute"),
        ("nowhere:hooks", "no module 'nowhere'"),
        ("shop.inner:hooks", "no module 'shop.inner'"),
        (".shop:hooks", "not the name of a module"),
        ("shop:nothing", "no 'nothing'"),
        ("shop:__name__", "no ASGI app"),
    ],
)
@pytest.mark.parametrize("name", ["serve", "worker"])
def test_a_wrong_app_is_one_line(command: Command, name: str, app: str, said: str) -> None:
    """It exits with 2 and says which part is wrong."""
    result = command(name, app)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n")), result.exception
    assert said in result.stderr


def test_an_app_that_is_misconfigured_is_one_line(command: Command, here: Path) -> None:
    """What Hooks refuses at construction is told without a traceback."""
    (here / "broken.py").write_text(
        "from animica_hooks import Hooks\nhooks = Hooks(signing_secret='short')\n"
    )
    result = command("serve", "broken:hooks")
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("from helper import x\n", ["broken.py", "helper.py", "NameError", "undefined"]),
        ("int('many')\n", ["broken.py", "ValueError"]),
        ("import not_there\n", ["broken.py", "ModuleNotFoundError", "not_there"]),
        ("def hooks(:\n", ["broken.py", "SyntaxError"]),
    ],
)
def test_an_app_that_can_not_be_imported_shows_its_own_lines(
    here: Path, source: str, says: list[str]
) -> None:
    """The traceback begins in the app: nothing of ours, nor of the import, is in it."""
    (here / "helper.py").write_text("x = undefined\n")
    (here / "broken.py").write_text(source)
    with Process("worker", "broken:hooks", cwd=here) as process:
        assert 2 == process.popen.wait(30)
        said = process.said()
    assert [] == [word for word in says if word not in said]
    files = re.findall(r'File "(.*?)"', said)
    assert {here} == {Path(file).parent for file in files}, said
    assert said.endswith("error: broken can not be imported: see above.\n")


def test_an_app_that_says_why_it_does_not_start_is_one_line(here: Path) -> None:
    """What an app's lifespan reports as failed is told, and the exit code is 2."""
    (here / "unready.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no coffee'})\n"
    )
    with Process("serve", "unready:app", "--port", "0", cwd=here) as process:
        assert 2 == process.popen.wait(30)
        assert "error: the app did not start: no coffee\n" == process.said()


@pytest.mark.parametrize("app", [[], ["shop:hooks"]], ids=["without app", "with app"])
def test_a_missing_secret_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, app: list[str]
) -> None:
    """A server that could verify nothing does not start; it exits with 2 and says what to set."""
    monkeypatch.delenv("ANIMICA_HOOKS_SIGNING_SECRET")
    with Process("serve", *app, "--port", "0", cwd=here) as process:
        assert 2 == process.popen.wait(30)
        assert 1 == process.said().count("\n"), process.said()
        assert process.said().startswith("error: there is no signing secret: set ANIMICA_")


def test_a_taken_port_is_one_line(command: Command) -> None:
    """It exits with 2 and names the option."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        result = command("serve", "shop:hooks", "--port", port)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert f"port {port} of 127.0.0.1 is taken: choose another with --port" in result.stderr


def test_a_host_that_is_not_here_is_one_line(command: Command) -> None:
    """Neither a name without an address nor another machine's address can be bound."""
    for host in ("203.0.113.1", "no.such.host.invalid"):
        result = command("serve", "shop:hooks", "--host", host)
        assert (2, 1) == (result.exit_code, result.stderr.count("\n"))


def test_a_secret_is_not_given_to_an_app(command: Command) -> None:
    """--secret with an app would be ignored, so it is refused."""
    assert 2 == command("serve", "shop:hooks", "--secret", "whsec_0123456789abcdef").exit_code


def test_hooks_are_found_where_they_are_mounted(here: Path) -> None:
    """In routes, below mounts and behind middlewares, each once."""
    from starlette.applications import Starlette
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Mount

    hooks = load_hooks("shop:hooks", None)
    inner = Starlette()
    hooks.mount(inner, "/webhooks/animica")
    assert [hooks] == hooks_in(GZipMiddleware(Starlette(routes=[Mount("/api", inner)])))
    assert [] == hooks_in(Starlette())


def test_an_app_without_hooks_is_served_with_a_warning(command: Command, here: Path) -> None:
    """Somebody may have named the wrong thing; a database for nobody is wrong use."""
    (here / "bare_app.py").write_text("async def app(scope, receive, send): ...\n")
    with Process("serve", "bare_app:app", "--port", "0", cwd=here) as server:
        wait_for(lambda: "warning: bare_app:app has no Hooks" in server.said(), "it is said")
    refused = command("serve", "bare_app:app", "--port", "0", "--database-url", "sqlite:///b.db")
    assert (2, 1) == (refused.exit_code, refused.stderr.count("\n"))


def test_an_app_that_mounts_hooks_is_served(command: Command, here: Path) -> None:
    """The app's own lifespan starts the hooks, and a signal drains them."""
    (here / "site_app.py").write_text(
        "from shop import hooks\n"
        "from starlette.applications import Starlette\n"
        "app = Starlette(lifespan=hooks.lifespan)\n"
        "hooks.mount(app, '/webhooks/animica')\n"
    )
    with Process("serve", "site_app:app", "--port", "0", cwd=here) as server:
        url = f"{url_of(server)}webhooks/animica"
        assert 0 == command("trigger", "order.paid", "--to", url).exit_code
        assert 0 == server.stop()[0]
        assert "started by a request" not in server.said()


def test_a_worker_handles_what_was_stored_and_ends_at_a_signal(
    command: Command, here: Path
) -> None:
    """Jobs of a process that only receives are handled by a worker, which exits with 0."""
    hooks = load_hooks("shop:hooks", None)
    hooks.settings = replace(hooks.settings, dispatch=False)
    stock(hooks, [body_of(f"evt_{n}", "order.paid") for n in range(20)])

    def booked() -> bool:
        with closing(sqlite3.connect(here / "shop.db")) as database:
            done = "SELECT count(*) FROM hooks_jobs WHERE state = 'succeeded'"
            return bool(database.execute(done).fetchone() == (20,))

    assert not booked()
    with Process("worker", "shop:hooks", cwd=here) as worker:
        wait_for(booked, "all are handled")
        code, seconds = worker.stop(signal.SIGTERM)
        assert 0 == code, worker.said()
        assert seconds < 10


def test_a_worker_needs_no_secret(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It receives nothing, so there is nothing to verify."""
    monkeypatch.delenv("ANIMICA_HOOKS_SIGNING_SECRET")
    with Process("worker", "shop:hooks", cwd=here) as worker:
        wait_for((here / "shop.db").exists, "it has started")
        assert 0 == worker.stop(signal.SIGINT)[0], worker.said()


def test_a_signal_drains_at_once() -> None:
    """Deliveries are refused from the signal on, not from when the server looks next."""
    from animica_hooks.cli import server
    from animica_hooks.cli.connection import Config, Limits

    told: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None: ...

    config = Config(app, Limits(), proxy_headers=False)
    made = server.Server(config, on_start=lambda: None, on_stop=lambda: told.append("stop"))
    try:
        made.handle_exit(signal.SIGTERM, None)
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    assert (["stop"], True, False) == (told, made.should_exit, made.force_exit)
