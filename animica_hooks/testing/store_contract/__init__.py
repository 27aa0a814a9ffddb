"""What every store promises, whatever its database: a suite that a store of your own can run.

Name the suite in a test module, and say where a database is:

    from animica_hooks.testing.store_contract import *

    @pytest.fixture
    def database_url() -> str:
        return "mydb://..."

Each test gets a database of its own from that fixture: with no tables, or with ours and nothing in
them. The URL's scheme is the one that the store is registered for (docs/stores.md). The suite needs
``pip install animica-hooks[testing]``.
"""

import pytest

# Before they are imported: a failed assertion is to show its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("inbox", "kit", "lines", "order", "sessions"))
)

from animica_hooks.testing.store_contract.fixtures import *  # noqa: E402
from animica_hooks.testing.store_contract.inbox import *  # noqa: E402
from animica_hooks.testing.store_contract.lines import *  # noqa: E402
from animica_hooks.testing.store_contract.order import *  # noqa: E402
from animica_hooks.testing.store_contract.sessions import *  # noqa: E402

pytestmark = pytest.mark.anyio
