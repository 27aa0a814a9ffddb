"""What all tests share: the event loop, and how hard Hypothesis tries."""

import os

import pytest
from hypothesis import settings

# By default the same examples every time, so that a failure is the change's; in full, others.
settings.register_profile("small", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("full", deadline=None, max_examples=3000)
settings.load_profile("full" if os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full" else "small")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the package does."""
    return "asyncio"
