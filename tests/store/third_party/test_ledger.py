"""All that the author of a store writes to have it held to the contract."""

from pathlib import Path

import pytest

from animica_hooks.testing.store_contract import *


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"ledger:///{tmp_path / 'inbox.db'}"
