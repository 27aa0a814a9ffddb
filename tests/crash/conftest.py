"""Places with a database, whose processes are gone after the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crashkit import Place

MakePlace = Callable[..., Place]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[MakePlace]:
    """Makes places, with settings for the app in its environment."""
    places: list[Place] = []

    def make_place(**environment: str) -> Place:
        folder = tmp_path / f"place-{len(places)}"
        folder.mkdir()
        places.append(Place(folder, **environment))
        return places[-1]

    yield make_place
    for place in places:
        place.close()
