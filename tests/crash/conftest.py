"""Places with a database, whose processes are gone after the test."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from crashkit import MakePlace, Place
from databases import new_database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_place(database_kind: str, tmp_path: Path) -> Iterator[MakePlace]:
    """Makes places, with settings for the app in its environment."""
    places: list[Place] = []
    at_end = ExitStack()

    def make_place(**environment: str) -> Place:
        folder = tmp_path / f"place-{len(places)}"
        folder.mkdir()
        url = "" if database_kind == "sqlite" else at_end.enter_context(new_database(database_kind))
        places.append(Place(folder, database_kind, url, **environment))
        return places[-1]

    yield make_place
    for place in places:
        place.close()
    at_end.close()
