"""Each example runs as its first lines say, over real HTTP, and does what it promises."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from examplekit import EXAMPLES, SECRET, Example, eventually, running

from animica_hooks.testing import make_event, sign

Run = Callable[[str, str], Example]


def _states(database: Path) -> list[tuple[str, str | None]]:
    """Return the states of all jobs, in order, and why they are not otherwise."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT state, reason FROM hooks_jobs ORDER BY id").fetchall()


def test_all_are_run() -> None:
    """Every example is run by a test here."""
    source = Path(__file__).read_text()
    assert [] == [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}:' not in source]


def test_standalone(run: Run, tmp_path: Path) -> None:
    """The five minutes: an event is received, stored in the working directory, and handled."""
    example = run("standalone:hooks", "/")
    assert 200 == example.get("/health").status_code
    assert 204 == example.deliver("payment.succeeded", {"amount": 4200}, id="evt_1")
    forged = make_event("payment.succeeded")
    assert 400 == example.post(forged, sign(forged, SECRET + "?"))
    eventually(lambda: _states(tmp_path / "animica-hooks.db"), [("succeeded", None)])
    output = example.stop()
    assert "evt_1 4200\n" in output
    assert "Application shutdown complete" in output
    assert "Traceback" not in output


def test_starlette(run: Run, tmp_path: Path) -> None:
    """Mounted in Starlette: handlers of both kinds write to the app's own table, exactly once."""
    example = run("starlette_app:app", "/webhooks/animica")
    refund = {"id": "pay_1"}
    assert 204 == example.deliver("payment.refunded", refund)  # comes before its payment
    eventually(lambda: _states(tmp_path / "shop.db"), [("available", "NoResultFound")])
    for _ in range(3):
        assert 204 == example.deliver("payment.succeeded", {"id": "pay_1", "amount": 1}, id="evt_1")
    assert 204 == example.deliver("payment.succeeded", {"id": "pay_2", "amount": 2})
    expected = [["pay_1", 1, "refunded"], ["pay_2", 2, "paid"]]
    eventually(lambda: example.get("/payments").json(), expected)
    eventually(lambda: {state for state, _ in _states(tmp_path / "shop.db")}, {"succeeded"})
    output = example.stop()
    assert "Traceback" not in output
    assert "without hooks.lifespan" not in output


@pytest.mark.parametrize("path", ["/webhooks/animica", "/webhooks/animica/"])
def test_fastapi(run: Run, tmp_path: Path, path: str) -> None:
    """Mounted in FastAPI: typed events, one put off until another came, discarded, or no fit."""
    example = run("fastapi_app:app", path)
    assert 204 == example.deliver("parcel.shipped", {"order": 1})  # comes before its payment
    assert 204 == example.deliver("payment.succeeded", {"order": 1, "amount": 4200})
    assert 204 == example.deliver("payment.succeeded", {"order": 2, "amount": 1, "live": False})
    assert 204 == example.deliver("payment.succeeded", {"order": 3, "amount": "a lot"})
    expected = {
        ("succeeded", None),
        ("cancelled", "a test payment"),
        ("dead", "EventMisfit: $.amount"),
    }
    eventually(lambda: set(_states(tmp_path / "shop.db")), expected)
    [order] = example.get("/orders").json()
    assert (1, 4200) == (order["number"], order["amount"])
    assert order["parcel"].startswith("tracked as ")
    assert "/webhooks/animica" not in example.get("/openapi.json").text
    output = example.stop()
    assert "Traceback" not in output
    assert "without hooks.lifespan" not in output


def test_readme(tmp_path: Path) -> None:
    """The README's snippets, pasted one after the other, are an app that does what they say."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    ours, _, _ = readme.partition("## Calling the APIs back")
    snippets = re.findall(r"```python\n(.*?)```", ours, re.DOTALL)
    (tmp_path / "app.py").write_text("\n\n".join(snippets), encoding="utf-8")
    noon, night = "2030-01-31T12:00:00Z", "2030-01-31T02:00:00Z"
    database = tmp_path / "animica-hooks.db"
    with running("app:app", "/webhooks/animica", tmp_path, app_dir=tmp_path) as example:
        assert 204 == example.deliver("payment.succeeded", {"amount": 4200}, id="evt_1")
        for country, created in (("NO", noon), ("SE", noon), ("NO", night)):
            order = {"country": country, "number": f"{country} {created}"}
            assert 204 == example.deliver("order.paid", order, created=created)
        assert 204 == example.deliver("account.opened", {"account": "acct_7"})
        assert 204 == example.deliver("mail.due")
        expected = [
            ("succeeded", None),
            ("succeeded", None),
            ("cancelled", "we do not ship there"),
            ("available", None),
            ("succeeded", None),
            ("succeeded", None),
        ]
        eventually(lambda: _states(database), expected)
        with closing(sqlite3.connect(database)) as connection:
            assert [(f"NO {noon}",)] == connection.execute("SELECT * FROM shipments").fetchall()
        assert "evt_1 4200\n" in example.stop()
