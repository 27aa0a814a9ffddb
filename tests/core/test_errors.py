"""The tree of errors is what its docstring draws."""

import inspect
import pickle
import re

import pytest

import animica_hooks
from animica_hooks import errors
from animica_hooks.errors import AnimicaHooksError, SignatureError, SignatureReason

LINE = re.compile(r"(?P<stem>(?:│   |    |├── |└── )*)(?P<name>[A-Z]\w+)(?: {2,}\S.*)?")


def drawn() -> dict[str, str | None]:
    """The parent of each class in the drawing."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in inspect.getdoc(errors).splitlines():
        if not (found := LINE.fullmatch(line)):
            continue
        depth = len(found["stem"]) // 4
        parents[found["name"]] = above[depth - 1] if depth else None
        above[depth:] = [found["name"]]
    return parents


CLASSES = [
    found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, BaseException)
]


def test_the_drawing_is_the_tree() -> None:
    """Each class stands in the docstring below its parent, and nothing else does."""
    expected = {
        found.__name__: None if found is AnimicaHooksError else found.__base__.__name__
        for found in CLASSES
    }

    assert expected == drawn()
    assert len(expected) > 10


def test_every_error_is_of_one_tree() -> None:
    """One except clause catches whatever this package raises, and nothing of others."""
    assert all(issubclass(found, AnimicaHooksError) for found in CLASSES)
    assert AnimicaHooksError.__bases__ == (Exception,)
    assert animica_hooks.AnimicaHooksError is AnimicaHooksError


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_goes_to_other_processes(kind: type[AnimicaHooksError]) -> None:
    """An error that is raised in a process pool arrives with its message."""
    made = [SignatureError(reason) for reason in SignatureReason]
    for error in made if kind is SignatureError else [kind("what happened")]:
        arrived = pickle.loads(pickle.dumps(error))

        assert type(error) is type(arrived) is kind
        assert (str(error), vars(error)) == (str(arrived), vars(arrived))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_it_means(kind: type[AnimicaHooksError]) -> None:
    """Each class has a docstring of its own."""
    assert kind.__doc__ is not None
    assert kind.__doc__.strip().endswith((".", "failed."))


@pytest.mark.parametrize("reason", SignatureReason)
def test_a_signature_error_says_which_check_failed(reason: SignatureReason) -> None:
    """Its text is a sentence of ours: nothing that was sent, and nothing secret, is in it."""
    error = SignatureError(reason)

    assert error.reason is reason
    assert (reason,) == error.args
    assert re.fullmatch(r"[a-z][\w<>=,' ]{20,100}", str(error))


def test_each_reason_has_its_own_words() -> None:
    """For logs: no two reasons read the same."""
    assert len({str(SignatureError(reason)) for reason in SignatureReason}) == len(SignatureReason)
