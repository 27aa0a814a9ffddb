"""Fixtures of the SDK's tests: a server for each test process, a space of it for each test."""

from collections.abc import Iterator

import pytest
from apiserver import APIServer, Space


@pytest.fixture(scope="session")
def api_server() -> Iterator[APIServer]:
    with APIServer() as server:
        yield server


@pytest.fixture
def space(api_server: APIServer) -> Space:
    return api_server.space()
