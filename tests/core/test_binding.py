"""What a handler asks for is read from its signature, once, and mistakes are told at once."""

import datetime as dt
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import annotated_later
import msgspec
import pytest
from annotated_later import Payment
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Event, Job
from animica_hooks.core.binding import Binding, bind, data_converter, stable_name
from animica_hooks.errors import ConfigurationError, EventMisfit

S = TypeVar("S")


async def only_event(event): ...


async def first_is_the_event(anything): ...


async def by_name(job, session, event): ...


async def by_annotation(s: AsyncSession, j: Job, e: Event): ...


async def names_and_annotations_crossed(session: Event, event: AsyncSession): ...


async def keyword_only(*, session: AsyncSession, event: Event, job: Job): ...


async def with_defaults(event, currency="eur", *, retries: int = 3): ...


async def with_stars(event, *more, **others): ...


async def event_with_default(event=None, session=None): ...


def plain(event): ...


def plain_with_session(event, s: Session): ...


def plain_typed(e: Event[Payment], session: Session, job: Job): ...


class Callee:
    """Handlers that belong to a class or an object."""

    async def __call__(self, event, session: AsyncSession): ...

    async def method(self, event): ...

    def plain_method(self, event): ...

    @classmethod
    async def of_class(cls, event): ...

    @staticmethod
    async def of_none(event): ...


class PlainCallee:
    def __call__(self, it: Event): ...


def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of the usual kind."""

    @functools.wraps(function)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    return wrapped


async def with_dependency(store, event, clock, session): ...


A, P = True, False


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (only_event, Binding(A, "event", None, None)),
        (first_is_the_event, Binding(A, "anything", None, None)),
        (by_name, Binding(A, "event", "session", "job")),
        (by_annotation, Binding(A, "e", "s", "j")),
        (names_and_annotations_crossed, Binding(A, "session", "event", None)),
        (keyword_only, Binding(A, "event", "session", "job")),
        (with_defaults, Binding(A, "event", None, None)),
        (with_stars, Binding(A, "event", None, None)),
        (event_with_default, Binding(A, "event", "session", None)),
        (plain, Binding(P, "event", None, None)),
        (plain_with_session, Binding(P, "event", "s", None)),
        (plain_typed, Binding(P, "e", "session", "job")),
        (lambda event: None, Binding(P, "event", None, None)),
        (Callee(), Binding(A, "event", "session", None)),
        (Callee().method, Binding(A, "event", None, None)),
        (Callee().plain_method, Binding(P, "event", None, None)),
        (Callee.of_class, Binding(A, "event", None, None)),
        (Callee.of_none, Binding(A, "event", None, None)),
        (vars(Callee)["of_none"], Binding(A, "event", None, None)),
        (PlainCallee(), Binding(P, "it", None, None)),
        (wrapper(by_annotation), Binding(A, "e", "s", "j")),
        (functools.partial(only_event), Binding(A, "event", None, None)),
        (functools.partial(plain), Binding(P, "event", None, None)),
        (functools.partial(Callee()), Binding(A, "event", "session", None)),
        (
            functools.partial(functools.partial(with_dependency, object()), clock=object()),
            Binding(A, "event", "session", None),
        ),
        (annotated_later.typed, Binding(A, "event", "session", "job")),
        (annotated_later.by_annotation, Binding(P, "e", "s", "j")),
        (annotated_later.quoted, Binding(P, "e", None, None)),
        (annotated_later.optional, Binding(P, "e", None, None)),
        (annotated_later.Shop(), Binding(A, "event", "session", None)),
        (annotated_later.Shop().method, Binding(A, "event", None, None)),
    ],
)
def test_what_a_handler_asks_for(function: Callable[..., Any], expected: Binding) -> None:
    """Event, session and job are found by annotation, by name, or the event by being first."""
    assert expected == bind(function, "h")


def generator(event: Event) -> Iterator[None]:
    yield


async def async_generator(event: Event) -> AsyncIterator[None]:
    yield


def nothing() -> None: ...


def only_stars(*arguments: Any, **named: Any) -> None: ...


def only_a_session(session: Session) -> None: ...


def unknown(event: Event, mailer: object) -> None: ...


def positional_only(event: Event, /) -> None: ...


def positional_only_session(event: Event, session: Session, /) -> None: ...


def two_events(event: Event, other: Event) -> None: ...


def two_sessions(event: Event, session: Session, other: Session) -> None: ...


async def sync_session(event: Event, session: Session) -> None: ...


def async_session(event: Event, session: AsyncSession) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (generator, "is a generator: remove its yield"),
        (async_generator, "is a generator: remove its yield"),
        (nothing, "takes no event"),
        (only_stars, "takes no event"),
        (only_a_session, "takes no event"),
        (unknown, "asks for 'mailer', which is neither event, session nor job: give it a default"),
        (positional_only, "parameter 'event' is positional-only: remove the '/'"),
        (positional_only_session, "parameter 'event' is positional-only: remove the '/'"),
        (two_events, "asks for the event twice"),
        (two_sessions, "asks for the session twice"),
        (Callee.method, "asks for the event twice"),
        (sync_session, "is an async def: .* AsyncSession, not Session"),
        (async_session, "is a plain def: .* Session, not AsyncSession"),
        (max, "no signature found .* wrap it in a function"),
    ],
)
def test_a_handler_that_can_not_be_called_is_refused(
    function: Callable[..., Any], message: str
) -> None:
    """What is wrong with a signature is said when it is registered, and how to mend it."""
    with pytest.raises(ConfigurationError, match=f"^handler shop.h:? {message}"):
        bind(function, "shop.h")


# Names


def test_a_name_is_module_and_qualname() -> None:
    """A function's, a method's and a class's name are where they are found."""
    assert stable_name(plain) == "test_binding.plain"
    assert stable_name(Callee().method) == "test_binding.Callee.method"
    assert stable_name(Callee.of_none) == "test_binding.Callee.of_none"
    assert stable_name(wrapper(plain)) == "test_binding.plain"
    assert stable_name(annotated_later.local()) == "annotated_later.local.<locals>.handler"


def test_a_script_is_named_by_its_file() -> None:
    """Run as a script, a module's handlers have the names that they have when it is imported."""
    source = "class C:\n    def m(self, event): ...\ndef handle(event): ..."
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "/srv/shop/app.py", "exec"), scope)

    assert stable_name(scope["handle"]) == "app.handle"
    assert stable_name(scope["C"]().m) == "app.C.m"


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda event: None, "function"),
        (functools.partial(plain), "partial"),
        (Callee(), "Callee"),
    ],
)
def test_what_has_no_name_must_be_given_one(function: Callable[..., Any], kind: str) -> None:
    """A lambda, a partial or an object has no name that outlives the process."""
    with pytest.raises(ConfigurationError) as caught:
        stable_name(function)

    expected = f"a {kind} has no name that outlives the process: pass name=."
    assert expected == str(caught.value)


# The T of an event


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Address(TypedDict):
    city: str
    street: NotRequired[str]


class Order(msgspec.Struct):
    lines: list[Payment]
    color: Color = Color.RED
    level: Level = Level.LOW
    kind: Literal["a", "b"] = "a"
    number: Literal[1, 2] = 1
    by_name: dict[str, int] = msgspec.field(default_factory=dict)
    at: dt.datetime | None = None
    key: uuid.UUID | None = None
    price: Decimal = Decimal(0)
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]*$")] = ""


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


class Card(msgspec.Struct, tag="card"):
    last4: str


class Bank(msgspec.Struct, tag="bank"):
    iban: str


class One(msgspec.Struct, tag=1):
    a: int


class Two(msgspec.Struct, tag=2):
    a: int


class Box(msgspec.Struct, Generic[S]):
    inside: S


@dataclass
class Nested:
    address: Address
    payments: list[Payment] = field(default_factory=list)


def handler_of(wanted: object) -> Callable[..., Any]:
    """A handler that asks for an event whose data is of a type."""

    def handler(e): ...

    handler.__annotations__["e"] = Event[wanted]
    return handler


def convert(wanted: object, data: object) -> object:
    """Convert an event's data for a handler that asks for a type."""
    converter = data_converter(handler_of(wanted), "e", "h")
    assert converter is not None
    return converter(data)


@pytest.mark.parametrize(
    ("wanted", "data", "expected"),
    [
        (Payment, {"amount": 4200, "more": "ignored"}, Payment(4200)),
        (Payment | None, None, None),
        (Address, {"city": "Oslo"}, {"city": "Oslo"}),
        (Order, {"lines": [{"amount": 1}]}, Order(lines=[Payment(1)])),
        (
            Order,
            {"lines": [], "color": "red", "at": "2024-05-06T07:08:09Z", "price": "1.10"},
            Order(
                lines=[],
                at=dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC),
                price=Decimal("1.10"),
            ),
        ),
        (Card | Bank, {"type": "bank", "iban": "NO93"}, Bank("NO93")),
        (Box[int], {"inside": 1}, Box(1)),
        (
            Nested,
            {"address": {"city": "Oslo", "street": "x"}, "payments": [{"amount": 2}]},
            Nested({"city": "Oslo", "street": "x"}, [Payment(2)]),
        ),
        (list[Payment], [{"amount": 1}, {"amount": 2}], [Payment(1), Payment(2)]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int, 7, 7),
    ],
)
def test_data_that_fits_is_converted(wanted: object, data: object, expected: object) -> None:
    """Dataclasses, TypedDicts, Structs and what they hold are made of an event's data."""
    converted = convert(wanted, data)

    assert expected == converted
    assert type(expected) is type(converted)


# Each has the canary where a message could quote it: as text, as a number, within quotes.
CANARY, CANARY_NUMBER = "CANARY' - at `$.4242`", 4242


@pytest.mark.parametrize(
    ("wanted", "data", "expected"),
    [
        (Payment, {}, "Object missing required field `amount`"),
        (Payment, {"amount": CANARY}, "Expected `int`, got `str` - at `$.amount`"),
        (Payment, {"amount": 42.42}, "Expected `int`, got `float` - at `$.amount`"),
        (Payment, [CANARY], "Expected `object`, got `array`"),
        (Payment, None, "Expected `object`, got `null`"),
        (Payment, CANARY, "Expected `object`, got `str`"),
        (Address, {"city": CANARY_NUMBER}, "Expected `str`, got `int` - at `$.city`"),
        (
            Nested,
            {"address": {"city": "x"}, "payments": [{"amount": 1}, {"amount": CANARY}]},
            "Expected `int`, got `str` - at `$.payments[1].amount`",
        ),
        (Order, {"lines": [], "color": CANARY}, "Invalid enum value - at `$.color`"),
        (Order, {"lines": [], "color": "CANARY"}, "Invalid enum value - at `$.color`"),
        (Order, {"lines": [], "level": CANARY_NUMBER}, "Invalid enum value - at `$.level`"),
        (Order, {"lines": [], "kind": CANARY}, "Invalid enum value - at `$.kind`"),
        (Order, {"lines": [], "number": CANARY_NUMBER}, "Invalid enum value - at `$.number`"),
        (
            Order,
            {"lines": [], "by_name": {CANARY: "x"}},
            "Expected `int`, got `str` - at `$.by_name[...]`",
        ),
        (Order, {"lines": [], "at": CANARY}, "Invalid RFC3339 encoded datetime - at `$.at`"),
        (Order, {"lines": [], "key": CANARY}, "Invalid UUID - at `$.key`"),
        (Order, {"lines": [], "price": CANARY}, "Invalid decimal string - at `$.price`"),
        (
            Order,
            {"lines": [], "code": CANARY},
            "Expected `str` matching regex '^[a-z]*$' - at `$.code`",
        ),
        (Card | Bank, {"type": CANARY}, "Invalid value - at `$.type`"),
        (Card | Bank, {"type": "card"}, "Object missing required field `last4`"),
        (One | Two, {"type": CANARY_NUMBER}, "Invalid value - at `$.type`"),
        (Closed, {"b": CANARY}, "Object contains unknown field `b`"),
        (Color, CANARY, "Invalid enum value"),
        (Level, CANARY_NUMBER, "Invalid enum value"),
        (list[Color], ["red", "\n" + CANARY], "Invalid enum value - at `$[1]`"),
    ],
)
def test_a_misfit_is_told_by_its_path(wanted: object, data: object, expected: str) -> None:
    """What does not fit is named by its path and type; no value of the payload is quoted."""
    with pytest.raises(EventMisfit) as caught:
        convert(wanted, data)

    assert "event.data does not fit: " + expected == str(caught.value)
    assert "CANARY" not in repr(caught.value)
    assert "4242" not in repr(caught.value)
    assert caught.value.__suppress_context__ is True


def test_pydantic_models_are_converted() -> None:
    """A pydantic model validates the data; its misfits have path and kind, and no value."""
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):
        amount: int
        color: Color = Color.RED

        @pydantic.field_validator("amount")
        @classmethod
        def check(cls, amount: int) -> int:
            if amount > 4000:
                raise ValueError(f"{amount} is too much")
            return amount

    class Basket(pydantic.BaseModel):
        lines: list[Line]

    assert Basket(lines=[Line(amount=1)]) == convert(Basket, {"lines": [{"amount": "1"}]})
    for expected, data in {
        "int_parsing - at `$.lines[0].amount`": {"lines": [{"amount": CANARY}]},
        "value_error - at `$.lines[0].amount`": {"lines": [{"amount": CANARY_NUMBER}]},
        "missing - at `$.lines[1].amount`": {"lines": [{"amount": 1}, {}]},
        "enum - at `$.lines[0].color`": {"lines": [{"amount": 1, "color": CANARY}]},
        "model_type - at `$`": [CANARY],
    }.items():
        with pytest.raises(EventMisfit) as caught:
            convert(Basket, data)

        assert "event.data does not fit: " + expected == str(caught.value)
        assert "CANARY" not in repr(caught.value)


class Picky(msgspec.Struct):
    amount: int

    def __post_init__(self) -> None:
        raise ValueError(f"{self.amount} - at `$.CANARY`")


@pytest.mark.parametrize(
    ("wanted", "data", "expected"),
    [
        (Payment, {"amount": CANARY}, "$.amount"),
        (Payment, {}, "$.amount"),
        (Payment, [CANARY], "$"),
        (Nested, {"address": {"city": "x"}, "payments": [{}]}, "$.payments[0].amount"),
        (dict[str, int], {CANARY: CANARY}, "$[...]"),
        (dict[int, int], {CANARY: 1}, "$"),
        (list[Color], [CANARY], "$[0]"),
        (Closed, {CANARY: 1}, "$"),
        (Picky, {"amount": 4242}, "$"),
        (list[Picky], [{"amount": 4242}], "$[0]"),
    ],
)
def test_the_path_of_a_misfit_has_nothing_of_the_payload(
    wanted: object, data: object, expected: str
) -> None:
    """It is of field names and indices, and hides the keys of a dict."""
    with pytest.raises(EventMisfit) as caught:
        convert(wanted, data)

    assert expected == caught.value.path


def test_keys_of_the_payload_are_hidden_in_a_model_too() -> None:
    """Pydantic's path has those of dicts, and of fields that are too many."""
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel, extra="forbid"):
        amounts: dict[str, int] = pydantic.Field(alias="perMonth")

    class Basket(pydantic.BaseModel):
        lines: list[Line]
        anything: Callable[[], int] | None = None  # there is no JSON Schema of this one

    class Baskets(pydantic.BaseModel):
        line: Line

    for model, data, expected in (
        (Baskets, {"line": {"perMonth": {CANARY: "x"}}}, "$.line.perMonth[...]"),
        (Baskets, {"line": {"perMonth": {}, CANARY: 1}}, "$.line[...]"),
        (Basket, {"lines": [{"perMonth": {CANARY: "x"}}]}, "$[...][0][...][...]"),
    ):
        with pytest.raises(EventMisfit) as caught:
            convert(model, data)
        assert expected == caught.value.path
        assert "CANARY" not in str(caught.value)


def test_another_error_of_a_model_is_not_a_misfit() -> None:
    """A ValueError that does not say where is the model's own fault, and is raised as it is."""

    class Broken:
        @classmethod
        def model_validate(cls, data: object) -> object:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        convert(Broken, {})


@pytest.mark.parametrize(
    ("function", "parameter"),
    [
        (annotated_later.typed, "event"),
        (annotated_later.by_annotation, "e"),
        (annotated_later.quoted, "e"),
        (annotated_later.renamed, "it"),
        (annotated_later.optional, "e"),
        (annotated_later.annotated, "e"),
        (annotated_later.Shop(), "event"),
        (annotated_later.Shop().method, "event"),
        (annotated_later.partial, "event"),
        (wrapper(annotated_later.typed), "event"),
        (plain_typed, "e"),
        (functools.partial(plain_typed, job=None), "e"),
    ],
)
def test_event_types_are_found(function: Callable[..., Any], parameter: str) -> None:
    """The T of Event[T] is found in evaluated and in string annotations, however wrapped."""
    converter = data_converter(function, parameter, "h")

    assert converter is not None
    assert Payment(7) == converter({"amount": 7})


def takes_a_dict(event: dict[str, Any]) -> None: ...


def takes_a_mapping(event: Mapping[str, int]) -> None: ...


def takes_a_plain_event(event: Event) -> None: ...


def takes_any(event: Event[Any]) -> None: ...


def takes_an_object(event: Event[object]) -> None: ...


def takes_a_type_variable(event: Event[S]) -> None: ...


def takes_an_annotated_event(event: Annotated[Event, "more"]) -> None: ...


def takes_an_optional_event(event: Event | None) -> None: ...


@pytest.mark.parametrize(
    ("function", "parameter"),
    [
        (only_event, "event"),
        (takes_a_plain_event, "event"),
        (takes_any, "event"),
        (takes_an_object, "event"),
        (takes_a_type_variable, "event"),
        (takes_an_annotated_event, "event"),
        (takes_an_optional_event, "event"),
        (takes_a_dict, "event"),
        (takes_a_mapping, "event"),
        (annotated_later.plain, "e"),
        (annotated_later.untyped, "e"),
        (annotated_later.generic, "e"),
        (annotated_later.plain_beside_for_checkers, "e"),
    ],
)
def test_other_events_are_taken_as_they_are(function: Callable[..., Any], parameter: str) -> None:
    """Without a T, or where the annotation is no Event[T], nothing is converted."""
    assert data_converter(function, parameter, "h") is None


class Custom:
    """A class that nothing says how to make."""


def forward(e: Event["Payment"]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            annotated_later.only_for_checkers,
            r"'Event\[Decimal\]' .*NameError: name 'Decimal' .* not only under TYPE_CHECKING",
        ),
        (annotated_later.local(), r"'Event\[Hidden\]' .* Import its names at run time"),
        (forward, r"ForwardRef\('Payment'\)"),
        (handler_of(Custom), r"Custom'>\]: make it a dataclass"),
        (handler_of(list[str] | set[int]), "Type unions may not contain more than one"),
    ],
)
def test_a_type_that_can_not_be_checked_is_refused(
    function: Callable[..., Any], message: str
) -> None:
    """A T that is out of reach or not checkable is a mistake at the start, not with each event."""
    with pytest.raises(ConfigurationError, match=f"handler shop.h: .*{message}"):
        data_converter(function, "e", "shop.h")
