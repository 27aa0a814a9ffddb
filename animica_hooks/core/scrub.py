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
      # name=value in a URL, name='value' in a call or repr, "name": "value" in JSON or a dict;
      # a quote before a letter ends no value: it may begin another where the first was cut off
    | (?P<name>(?i:api[_-]key|token|secret|password)(?:=|["']:\s?(?=b?["'])))
      (?:b?'(?:[^'\n]|'(?=\w))*+'?|b?"(?:[^"\n]|"(?=\w))*+"?|[^\s&,;'")]+)
    """,
    re.VERBOSE,
)


def scrub(text: str, limit: int) -> str:
    """Return ``text`` without secrets, cut to ``limit`` characters (its end is kept)."""
    # Cut generously first, so that a huge text costs little.
    scrubbed = _SECRETS.sub(lambda found: (found["name"] or "") + "***", text[-4 * limit :])
    if len(text) > 4 * limit:
        # The rest of a secret that was cut is the first word; of a cut "Bearer", the second.
        scrubbed = re.sub(r"\A\S*(?:\s\S*)?", "", scrubbed)
    scrubbed = scrubbed.replace("\0", "\\0").encode("utf-8", "replace").decode()
    return scrubbed if len(scrubbed) <= limit else "..." + scrubbed[-(limit - 3) :]
