"""How long what is done with is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from animica_hooks.errors import ConfigurationError

DAY_S = 24 * 3600.0
BODIES_S = 30 * DAY_S
EVENTS_S = 90 * DAY_S
QUARANTINE_S = 90 * DAY_S
MIN_EVENTS_S = 3 * DAY_S  # senders try again for so long, and have to be known again


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is done with is kept, in seconds.

    An event is done with once none of its jobs is to run any more: its age is counted from its
    receipt, or from the end of its last job if that is later. What still has to run is kept.

    Attributes:
        bodies: payloads and headers. Without them an event can not be replayed; its digest stays,
            so that it is still deduplicated and conflicts are seen.
        events: events, with their jobs, failures and redeliveries; also the records of replays.
            What is delivered again after that is a new event. At least three days, and ``bodies``.
        dead: dead jobs, and with them all of their event; None keeps them until a person has
            retried or cancelled them. At least ``bodies``.
        quarantine: deliveries in the quarantine.

    Raises:
        ConfigurationError: one is no age, or less than it has to be.
    """

    bodies: float = BODIES_S
    events: float = EVENTS_S
    dead: float | None = None
    quarantine: float = QUARANTINE_S

    def __post_init__(self) -> None:
        for name in ("bodies", "events", "dead", "quarantine"):
            _check_age(name, getattr(self, name))
        if self.events < MIN_EVENTS_S:
            raise ConfigurationError(
                f"retention: events must be {MIN_EVENTS_S:.0f} seconds (three days) or more, not "
                f"{self.events!r}: a sender that tries again for so long would have its event "
                "handled twice."
            )
        if self.events < self.bodies:
            raise ConfigurationError(
                f"retention: events ({self.events!r}) must be bodies ({self.bodies!r}) or more: a "
                "body goes with its event at the latest."
            )
        if self.dead is not None and self.dead < self.bodies:
            raise ConfigurationError(
                f"retention: dead ({self.dead!r}) must be bodies ({self.bodies!r}) or more: a dead "
                "job can be retried for as long as its event has its body."
            )


def _check_age(name: str, value: object) -> None:
    if value is None and name == "dead":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"retention: {name} must be seconds, 0 or more, not {value!r}.")
