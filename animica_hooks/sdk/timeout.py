"""How long a call may take: each step of it, its first token, and all of it."""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeAlias, final

from animica_hooks.errors import ConfigurationError

# What the kernel's calls take: milliseconds in 31 bits, rounded down.
LONGEST_S = 2_000_000

# The official clients' ten minutes, which a long answer of a large model can take.
READ_S = 600.0
CONNECT_S = 10.0


@final
class Unset:
    """The type of ``UNSET``: what was not given, where None has a meaning of its own."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()

# The names that the official clients have for them: an argument of this value is left out.
NotGiven = Unset
NOT_GIVEN: Final[Any] = UNSET


def check_seconds(name: str, value: object) -> float | None:
    """Return seconds as a float, or None for no limit.

    Raises:
        ConfigurationError: it is no number above zero, or longer than can be waited for.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S:
        return float(value)
    raise ConfigurationError(
        f"{name} must be seconds above 0, at most {LONGEST_S:,}, or None for no limit."
    )


@final
class Timeout:
    """The longest that each step of a request may take, in seconds; None sets no limit.

    ``Timeout(60.0, read=5.0)`` is 60 s for all steps but reading.

    Attributes:
        connect: for a connection to be made.
        read: for the next bytes of the answer to come.
        write: for bytes of the request to go.
        pool: for a connection to be free.
    """

    __slots__ = ("connect", "pool", "read", "write")

    def __init__(
        self,
        timeout: float | None = None,
        *,
        connect: float | Unset | None = UNSET,
        read: float | Unset | None = UNSET,
        write: float | Unset | None = UNSET,
        pool: float | Unset | None = UNSET,
    ) -> None:
        whole = check_seconds("timeout", timeout)
        self.connect = whole if connect is UNSET else check_seconds("connect", connect)
        self.read = whole if read is UNSET else check_seconds("read", read)
        self.write = whole if write is UNSET else check_seconds("write", write)
        self.pool = whole if pool is UNSET else check_seconds("pool", pool)

    def as_tuple(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Return connect, read, write and pool."""
        return (self.connect, self.read, self.write, self.pool)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeout) and self.as_tuple() == other.as_tuple()

    def __hash__(self) -> int:
        return hash(self.as_tuple())

    def __repr__(self) -> str:
        return (
            f"Timeout(connect={self.connect}, read={self.read}, "
            f"write={self.write}, pool={self.pool})"
        )


class TimeoutLike(Protocol):
    """A limit for each step, as ``httpx.Timeout`` has them."""

    @property
    def connect(self) -> float | None: ...
    @property
    def read(self) -> float | None: ...
    @property
    def write(self) -> float | None: ...
    @property
    def pool(self) -> float | None: ...


AnyTimeout: TypeAlias = float | Timeout | TimeoutLike | None

DEFAULT = Timeout(READ_S, connect=CONNECT_S)


def timeout_from(value: object) -> Timeout:
    """Return what a ``timeout`` argument means: seconds, None, ours, or one of httpx's objects.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(value, Timeout):
        return value
    if value is None or isinstance(value, int | float):
        return Timeout(value)
    try:
        steps = {name: getattr(value, name) for name in ("connect", "read", "write", "pool")}
    except AttributeError:
        raise ConfigurationError(
            f"timeout must be seconds, None, a Timeout or an httpx.Timeout, "
            f"not {type(value).__name__}."
        ) from None
    return Timeout(**steps)
