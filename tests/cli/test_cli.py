"""The command line as a whole: help, exit codes, databases that are not there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from clikit import PATIENCE_S, SECRET

from animica_hooks.cli import cli, output
from animica_hooks.store.schema import HEAD

Command = Callable[..., Result]

# Each command that only looks at a database, or changes what is in it.
ON_A_DATABASE = [
    "events list",
    "events show evt_1",
    "jobs list",
    "jobs show 1",
    "jobs retry 1",
    "dead list",
    "stats",
    "quarantine list",
    "quarantine show 1",
    "quarantine release 1",
    "quarantine discard 1 --yes",
    "replay --all --yes",
    "replay --all --dry-run --app shop:hooks",
    "db current",
    "db check",
]


def leaves(command: click.Command, *names: str) -> list[tuple[str, ...]]:
    """Return the names of all commands below a group."""
    if not isinstance(command, click.Group):
        return [names]
    return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, *names, name)]


@pytest.mark.parametrize("names", [(), *leaves(cli)], ids=" ".join)
def test_every_command_has_help(command: Command, names: tuple[str, ...]) -> None:
    """--help explains each command and exits with 0."""
    result = command(*names, "--help")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "Usage:" in result.stdout


def test_help_documents_exit_codes_and_databases(command: Command) -> None:
    """What the codes mean and where the database comes from is said where people look."""
    text = command("--help").stdout
    for said in ("Exit codes:", "0  done", "1  failed", "2  wrong use", "--database-url"):
        assert said in text


def test_help_waits_for_nothing_heavy() -> None:
    """--help imports neither the server, nor the database, nor what draws tables."""
    script = (
        "import sys\n"
        "from animica_hooks.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print(sorted({'uvicorn', 'sqlalchemy', 'rich', 'alembic', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n['asyncio']\n") or done.stdout.endswith("\n[]\n")


def test_python_dash_m_is_the_same_program() -> None:
    """`python -m animica_hooks` runs the command line under its own name."""
    done = subprocess.run(
        [sys.executable, "-m", "animica_hooks", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("animica-hooks ")


@pytest.mark.parametrize("arguments", ON_A_DATABASE)
def test_no_command_makes_a_database_by_looking(
    command: Command, here: Path, arguments: str
) -> None:
    """Without a database a command says so, in one line, and leaves the directory as it was."""
    before = set(here.iterdir())
    result = command(*arguments.split())
    assert 2 == result.exit_code
    assert f"error: there is no database {here / 'shop.db'}: " in result.stderr
    assert 1 == result.stderr.count("\n")
    assert before == {path for path in here.iterdir() if path.name != "__pycache__"}


@pytest.mark.parametrize("arguments", [a for a in ON_A_DATABASE if not a.startswith("db ")])
def test_commands_do_not_migrate(command: Command, here: Path, arguments: str) -> None:
    """On a database without the tables a command names the one that makes them."""
    (here / "shop.db").touch()
    result = command(*arguments.split())
    assert 2 == result.exit_code
    assert "run 'animica-hooks db upgrade'" in result.stderr


@pytest.mark.parametrize(
    "url",
    ["no url", "oracle://u:canary@host/db", "sqlite://", "sqlite:////no/such/directory/hooks.db"],
)
@pytest.mark.parametrize("arguments", ["stats", "db upgrade", "db current"])
def test_a_wrong_database_url_is_one_line(command: Command, arguments: str, url: str) -> None:
    """It exits with 2, says what to write, and quotes no password."""
    result = command(*arguments.split(), "--database-url", url)
    assert 2 == result.exit_code
    assert result.stderr.startswith("error: ")
    assert 1 == result.stderr.count("\n")
    assert "canary" not in result.stderr


def test_a_file_that_is_no_database_is_one_line(command: Command, here: Path) -> None:
    """Any other file is refused without a traceback."""
    (here / "shop.db").write_text("not a database, but long enough to be seen as none" * 50)
    for arguments in ("stats", "db current", "db check", "db upgrade"):
        result = command(*arguments.split())
        assert 2 == result.exit_code
        assert result.stderr.startswith("error: "), result.exception
        assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize("arguments", ["db upgrade", "db current", "stats", "serve"])
def test_a_port_that_is_no_number_is_one_line(command: Command, arguments: str) -> None:
    """A password with an '@' in it, or several hosts, are refused without a traceback."""
    url = "postgresql://user:pass@word:canary/2@localhost/hooks"
    result = command(*arguments.split(), "--database-url", url)
    assert 2 == result.exit_code
    assert result.stderr.startswith("error: database_url has a port"), result.exception
    assert 1 == result.stderr.count("\n")
    assert "canary" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, from root either")
def test_a_directory_that_takes_no_files_is_one_line() -> None:
    """What can not be made is told without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "animica_hooks", "serve"],
        env=os.environ
        | {
            "ANIMICA_HOOKS_SIGNING_SECRET": SECRET,
            "ANIMICA_HOOKS_DATABASE_URL": "sqlite:////proc/hooks.db",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert 2 == done.returncode
    assert done.stderr.startswith("error: "), done.stderr
    assert 1 == done.stderr.count("\n")
    assert "/proc/hooks.db" in done.stderr


def test_db_upgrade_makes_the_tables_once(command: Command, here: Path) -> None:
    """`db upgrade` makes the database, `current` and `check` agree, and again changes nothing."""
    first, again = command("db", "upgrade", "--json"), command("db", "upgrade", "--json")
    assert f'{{"from": null, "to": "{HEAD}"}}\n' == first.stdout
    assert f'{{"from": "{HEAD}", "to": "{HEAD}"}}\n' == again.stdout
    assert (0, f"{HEAD}\n") == ((shown := command("db", "current")).exit_code, shown.stdout)
    assert 0 == command("db", "check").exit_code


def test_db_current_and_check_fail_before_an_upgrade(command: Command, here: Path) -> None:
    """A schema that is not the newest exits with 1."""
    (here / "shop.db").touch()
    assert 1 == command("db", "current").exit_code
    assert 1 == command("db", "check").exit_code


def test_db_commands_go_on_with_a_newer_schema_that_only_adds(command: Command, here: Path) -> None:
    """As after a release was taken back: they say so, exit with 0, and change nothing."""
    import sqlite3
    from contextlib import closing

    command("db", "upgrade")
    with closing(sqlite3.connect(here / "shop.db")) as database, database:
        database.execute("UPDATE hooks_version SET version_num = '0099'")
    for name, said in {
        "current": f"0099: newer than {HEAD}",
        "check": f"the tables are those of schema 0099: newer than {HEAD}",
        "upgrade": f"the database is at schema 0099 already: newer than {HEAD}",
    }.items():
        result = command("db", name)
        assert (0, True) == (result.exit_code, result.stdout.startswith(said))
    assert (
        f'{{"current": "0099", "newest": "{HEAD}"}}\n' == command("db", "current", "--json").stdout
    )
    assert 0 == command("stats").exit_code


@pytest.mark.parametrize(
    ("version", "said"),
    [("0001", "run 'animica-hooks db upgrade'"), ("9999", "install the newer animica_hooks")],
)
def test_db_check_says_what_to_do_about_another_schema(
    command: Command, here: Path, version: str, said: str
) -> None:
    """An older one is upgraded; one of a newer era can not be."""
    import sqlite3
    from contextlib import closing

    command("db", "upgrade")
    with closing(sqlite3.connect(here / "shop.db")) as database, database:
        database.execute("UPDATE hooks_version SET version_num = ?", (version,))
    result = command("db", "check")
    assert 1 == result.exit_code
    assert said in result.stderr


def test_db_check_names_what_differs(command: Command, here: Path) -> None:
    """A column that somebody has dropped is found."""
    import sqlite3
    from contextlib import closing

    command("db", "upgrade")
    with closing(sqlite3.connect(here / "shop.db")) as database:
        database.execute("ALTER TABLE hooks_quarantine DROP COLUMN reason")
    result = command("db", "check")
    assert 1 == result.exit_code
    assert "reason" in result.stderr


def test_looking_needs_no_secret(
    command: Command, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators' commands work where the signing secret is not known."""
    monkeypatch.delenv("ANIMICA_HOOKS_SIGNING_SECRET")
    assert 0 == command("events", "list").exit_code
    assert 0 == command("replay", "--all", "--plan").exit_code


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "a\nb", "\x9b1m", "\u202ertl", "\x7f", "\ud800", "é 李 [red]"]
)
def test_what_is_printed_moves_no_terminal(text: str) -> None:
    """Control characters, overrides and lone surrogates are escaped; letters are left."""
    assert output.plain(text).isprintable()
    assert ("é 李 [red]" in output.plain(text)) == (text == "é 李 [red]")
