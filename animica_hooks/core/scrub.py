"""Take secrets out of text that is kept: messages and tracebacks of failed attempts."""

from __future__ import annotations

import re

_SECRETS = re.compile(
    r"""
      whsec_[\w+/=-]+                        # signing secrets
    | anm_(?:live|test)_\w+                  # Animica's keys
    | \bsk-[\w-]{8,}                         # keys of model providers
    | (?<=://)[^\s/@:]*:[^\s/@]+(?=@)        # user:password in a URL
    | (?i:(?<=bearer\s)|(?<=basic\s))[\w.~+/=-]{8,}
    | (?i:(?<=api_key=)|(?<=api-key=)|(?<=token=)|(?<=secret=)|(?<=password=))[^\s&,;'")]+
    """,
    re.VERBOSE,
)


def scrub(text: str, limit: int) -> str:
    """Return ``text`` without secrets, cut to ``limit`` characters (its end is kept)."""
    # Cut generously first, so that a huge text costs little; never in the middle of a secret.
    scrubbed = _SECRETS.sub("***", text[-4 * limit :])
    scrubbed = scrubbed.replace("\0", "\\0").encode("utf-8", "replace").decode()
    return scrubbed if len(scrubbed) <= limit else "..." + scrubbed[-(limit - 3) :]
