"""The life of a job is a table; here it is walked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animica_hooks.core.job import FINAL, TRANSITIONS, State, Verb, idempotency_key, sources


def reachable(start: State, *, without: Verb | None = None) -> set[State]:
    """The states that a job can come to."""
    seen, ahead = {start}, [start]
    while ahead:
        for verb, state in TRANSITIONS[ahead.pop()].items():
            if verb is not without and state not in seen:
                seen.add(state)
                ahead.append(state)
    return seen


def test_the_states_are_those_of_the_contract() -> None:
    """Databases, filters and the command line know jobs by these words."""
    expected = {"available", "leased", "succeeded", "dead", "cancelled", "parked"}

    assert expected == set(State)
    assert expected == set(TRANSITIONS)
    assert {str(state) for state in FINAL} == {"succeeded", "dead", "cancelled"}


def test_a_new_job_can_come_to_every_state() -> None:
    """No state is unreachable, and no verb unused."""
    assert reachable(State.AVAILABLE) == set(State)
    assert {verb for verbs in TRANSITIONS.values() for verb in verbs} == set(Verb)


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_end_in_reach(state: State) -> None:
    """From each state each of the ends can be reached; only success is never left."""
    expected = {State.SUCCEEDED} if state is State.SUCCEEDED else set(FINAL)

    assert expected == reachable(state) & FINAL
    assert state.final is (state in FINAL)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_only_a_person_leads_out_of_an_end(state: State) -> None:
    """Out of dead and cancelled leads only their revival, out of succeeded nothing."""
    expected = {} if state is State.SUCCEEDED else {Verb.REVIVE: State.AVAILABLE}

    assert expected == dict(TRANSITIONS[state])
    assert reachable(state, without=Verb.REVIVE) == {state}


def test_handlers_run_only_under_a_lease() -> None:
    """Success, a retry and death come out of a lease only, and a lease out of a claim only."""
    for verb in (Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.BURY):
        assert sources(verb) == (State.LEASED,)
    for state, verbs in TRANSITIONS.items():
        assert [verb for verb, to in verbs.items() if to is State.LEASED] == (
            [Verb.CLAIM] if state is State.AVAILABLE else []
        )


@pytest.mark.parametrize("verb", Verb)
def test_sources_are_where_a_verb_leads_out_of(verb: Verb) -> None:
    """Of each verb the sources are the states whose row has it, and it leads to one state."""
    expected = {state for state in State if verb in TRANSITIONS[state]}

    assert expected == set(sources(verb))
    assert len({TRANSITIONS[state][verb] for state in sources(verb)}) == 1


def test_the_table_can_not_be_changed() -> None:
    """Nobody adds a transition at run time."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.SUCCEEDED] = {}


# Idempotency keys


def key(
    endpoint: str = "animica",
    event_id: str = "evt_1",
    handler: str = "app.h",
    replay_id: int | None = None,
) -> str:
    return idempotency_key(
        endpoint=endpoint, event_id=event_id, handler=handler, replay_id=replay_id
    )


def test_keys_outlive_releases() -> None:
    """A key is the same in every version: providers remember those of yesterday."""
    # printf 'animica\0evt_1\0app.h\0' | sha256sum
    assert key() == "ahk_88290106aba84b0420fb90d7c4e52a44"
    assert key(replay_id=7) == "ahk_5b3005c9a20f44654a2dc3cf14666925"


WORDS = st.text(alphabet="ab1.:_", max_size=4)
JOBS = st.tuples(WORDS, WORDS, WORDS, st.none() | st.integers(0, 3))


@given(JOBS, JOBS)
def test_keys_are_equal_exactly_for_the_same_work(
    one: tuple[str, str, str, int | None], other: tuple[str, str, str, int | None]
) -> None:
    """Two jobs have one key exactly if endpoint, event, handler and replay are the same."""
    assert (one == other) is (key(*one) == key(*other))


@given(st.text(), st.text(alphabet=st.characters()), st.text(), st.integers())
def test_keys_are_short_and_plain(endpoint: str, event: str, handler: str, replay: int) -> None:
    """Whatever the names, a key is 36 characters that go into any header."""
    made = key(endpoint, event, handler, replay)

    assert made.startswith("ahk_")
    assert len(made) == 36
    assert set(made[4:]) <= set("0123456789abcdef")
