"""Fixtures of the examples' tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from examplekit import Example, running


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str, str], Example]]:
    """Run an example, given as ``module:app``, that receives at a path, until the test's end."""
    with ExitStack() as stack:
        yield lambda name, path: stack.enter_context(running(name, path, tmp_path))
