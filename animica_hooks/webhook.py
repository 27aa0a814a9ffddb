"""``verify_webhook``: one call for those who receive webhooks with something else."""

from __future__ import annotations

import time

from animica_hooks.core import signature


def verify_webhook(
    secret: str | bytes,
    payload: str | bytes,
    signature_header: str | bytes,
    tolerance_sec: float = 300,
) -> bool:
    """Tell whether ``X-Animica-Signature`` signs the raw request body.

    Never raises, whatever it is given.

    Args:
        secret: the endpoint's signing secret, used verbatim; a blank one verifies nothing.
        payload: the raw body as received, not parsed and serialised again.
        signature_header: the header's value.
        tolerance_sec: seconds the timestamp may be off, to either side; ``<= 0`` does not look
            at the clock, so that an old delivery can be sent again by anybody who saw it.
    """
    return signature.verify(
        secret, payload, signature_header, tolerance_s=tolerance_sec, now=time.time()
    )
