"""The kit of the store contract, and what only our own tests need beside it."""

import asyncio
import os
from collections.abc import Callable

from animica_hooks.testing.store_contract.kit import *

FULL = os.environ.get("ANIMICA_HOOKS_TEST_SIZE") == "full"
PATIENCE_S = 20.0  # after which a test that waits for something has failed


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until something is so that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
