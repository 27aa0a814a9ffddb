"""Made-up events that look real, for ``trigger`` and ``demo``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

_NAMES = ("Ada Byron", "Grace Murray", "José Ñuñez", "李小龍", "Zoë Kravets", "Amara Okafor")
_CURRENCIES = ("eur", "usd", "gbp", "chf")
_BRANDS = ("visa", "mastercard", "amex")
_PLANS = ("starter", "team", "business")


def make_event(type: str, data: Any, random: Random, *, id: str | None = None) -> bytes:
    """Return the body of an event, as the provider would send it."""
    event = {
        "id": id if id is not None else _id("evt", random),
        "type": type,
        "created": int(time.time()),
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False).encode()


def make_data(type: str, random: Random) -> dict[str, Any]:
    """Return data such as events of this type have; empty for types that are not known."""
    maker = _MAKERS.get(type)
    return maker(random) if maker else {}


def _payment(random: Random) -> dict[str, Any]:
    return {
        "payment": _id("pay", random),
        "customer": _id("cus", random),
        "amount": random.randrange(500, 250_000),
        "currency": random.choice(_CURRENCIES),
        "card": {"brand": random.choice(_BRANDS), "last4": f"{random.randrange(10_000):04}"},
    }


def _invoice(random: Random) -> dict[str, Any]:
    amounts = [random.randrange(900, 20_000) for _ in range(random.randrange(1, 4))]
    return {
        "invoice": _id("inv", random),
        "customer": _id("cus", random),
        "currency": random.choice(_CURRENCIES),
        "lines": [{"plan": random.choice(_PLANS), "amount": amount} for amount in amounts],
        "total": sum(amounts),
    }


def _subscription(random: Random) -> dict[str, Any]:
    return {
        "subscription": _id("sub", random),
        "customer": _id("cus", random),
        "plan": random.choice(_PLANS),
        "seats": random.randrange(1, 50),
    }


def _customer(random: Random) -> dict[str, Any]:
    name = random.choice(_NAMES)
    customer = _id("cus", random)
    return {"customer": customer, "name": name, "email": f"{customer[-6:]}@example.com"}


_MAKERS: dict[str, Callable[[Random], dict[str, Any]]] = {
    "payment.succeeded": _payment,
    "payment.refunded": _payment,
    "invoice.paid": _invoice,
    "subscription.renewed": _subscription,
    "customer.created": _customer,
    "customer.deleted": _customer,
}


def _id(prefix: str, random: Random) -> str:
    return f"{prefix}_{random.getrandbits(96):024x}"
