"""The published contract of stores, on each of our databases."""

import pytest
from databases import DATABASES, PGBOUNCER

from animica_hooks.testing.store_contract import *

pytestmark = [
    pytest.mark.parametrize("database_kind", [*DATABASES, PGBOUNCER], indirect=True),
    pytest.mark.usefixtures("inbox_url"),  # its tables are made once for all
]
