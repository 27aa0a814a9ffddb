"""Order within a key: what the end of a job means for those behind it."""

import pytest

from animica_hooks.core.job import State
from animica_hooks.core.order import Aftermath, Line, OnDead, aftermath, parks

NOW = 1_000
NOTHING = Aftermath(parks=False, next_due=None)
CALLS = Aftermath(parks=False, next_due=NOW + 30)
PARKS = Aftermath(parks=True, next_due=NOW)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.AVAILABLE, (NOTHING, NOTHING, NOTHING)),
        (State.LEASED, (NOTHING, NOTHING, NOTHING)),
        (State.PARKED, (NOTHING, NOTHING, NOTHING)),
        (State.SUCCEEDED, (CALLS, CALLS, CALLS)),
        (State.CANCELLED, (CALLS, CALLS, CALLS)),
        (State.DEAD, (PARKS, CALLS, NOTHING)),
    ],
)
def test_what_an_end_means_for_those_behind(
    state: State, expected: tuple[Aftermath, Aftermath, Aftermath]
) -> None:
    """Whoever ends for good calls the next; after a dead one ``on_dead`` decides."""
    choices: tuple[OnDead, ...] = ("park", "skip", "block")
    found = [aftermath(state, Line(1, "key", choice, 30), NOW) for choice in choices]

    assert list(expected) == found
    assert [each.parks for each in expected] == [parks(state, choice) for choice in choices]
