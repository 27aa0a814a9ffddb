"""Secrets are taken out of what is kept of failures, wherever they stand."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cost import STILL_LINEAR, growth
from hypothesis import given
from hypothesis import strategies as st

from animica_hooks.core.scrub import scrub

PASSWORD = "CANARY-0123456789-abcdefghij"
WORD = PASSWORD.replace("-", "")

# As they stand in messages and tracebacks; what must not be left is the canary.
KINDS = {
    "signing secret": f"whsec_{WORD}",
    "signing secret in base64": f"whsec_{WORD}+/{WORD}==",
    "live key": f"anm_live_{WORD}",
    "test key": f"anm_test_{WORD}",
    "model provider's key": f"sk-{PASSWORD}",
    "password in a URL": f"postgresql+asyncpg://shop:{PASSWORD}@db.example:5432/shop",
    "password alone in a URL": f"redis://:{PASSWORD}@cache.example/0",
    "password with a colon in a URL": f"mysql://shop:{WORD}:{WORD}@db.example/shop",
    "bearer token": f"Authorization: Bearer {PASSWORD}",
    "bearer token in small letters": f"authorization: bearer {PASSWORD}.{WORD}",
    "basic credentials": f"Basic {WORD}==",
    "query": f"https://api.example/v1?token={PASSWORD}",
    "other query": f"https://api.example/v1?page=1&api_key={PASSWORD}",
    "form": f"grant=x&client_secret={PASSWORD}",
    "DSN": f"host=db user=shop PASSWORD={PASSWORD}",
    "call": f"connect(user='shop', password='{PASSWORD}')",
    "call with bytes": f"connect(user='shop', password=b'{PASSWORD}')",
    "call with double quotes": f'connect(user="shop", api-key="{PASSWORD}")',
    "call with a phrase": f"connect(password='{WORD} {WORD}, {WORD}')",
    "dict": str({"user": "shop", "password": PASSWORD}),
    "JSON": json.dumps({"user": "shop", "access_token": PASSWORD}),
    "dense JSON": json.dumps({"user": "shop", "secret": PASSWORD}, separators=(",", ":")),
    "cut-off call": f"connect(password='{PASSWORD}",
    "cut-off calls": f"connect(password='{PASSWORD} connect(password='{PASSWORD}",
}

# A phrase that is a password is removed too, but not its rest where a huge text is cut within it.
WORDS_ONLY = {kind: text for kind, text in KINDS.items() if kind != "call with a phrase"}


def leftovers(text: str) -> list[str]:
    """The pieces of the canary, eight characters long, that a text shows."""
    return [
        piece
        for canary in (PASSWORD, WORD)
        for at in range(len(canary) - 7)
        if (piece := canary[at : at + 8]) in text
    ]


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "frame",
    ["{}", "{} and more", "before {}", "two\nlines {}\nor three", "({})", "[{}]", "“{}”", "a,{},b"],
)
def test_secrets_are_removed_wherever_they_stand(text: str, frame: str) -> None:
    """Alone, at the start, in the middle, at the end, in brackets: nothing of a secret is left."""
    scrubbed = scrub(frame.format(text), 1000)

    assert "***" in scrubbed
    assert leftovers(scrubbed) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connect(user='shop', password='x')", "connect(user='shop', password=***)"),
        ("postgresql://u:p@h:5432/d failed", "postgresql://***@h:5432/d failed"),
        ("?a=1&token=x&b=2", "?a=1&token=***&b=2"),
        ('{"secret": "x", "a": 1}', '{"secret": ***, "a": 1}'),
        ("Bearer abcdefgh: refused", "Bearer ***: refused"),
        ("bad whsec_abc.", "bad ***."),
    ],
)
def test_what_is_beside_a_secret_stays(text: str, expected: str) -> None:
    """The words round a secret are kept, so that the message can still be understood."""
    assert expected == scrub(text, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: amount must be positive",
        "KeyError: 'token'",
        "task-list and desk-top are no keys, nor is sk-short",
        "https://api.example:8000/a/b?page=2#x",
        "see mail@example.com or http://example.com/@name",
        'File "/srv/app.py", line 7, in handle\n    token = read_token(secret)\n',
        "bearer of bad news; basic needs",
        "größer als 5 € 😀\t[]{}",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Ordinary messages, lines of code and addresses are kept as they are."""
    assert text == scrub(text, 1000)


@dataclass
class Cut:
    """A text whose first cut falls at each place of a secret in turn."""

    secret: str
    after: str

    def texts(self, limit: int) -> list[str]:
        window = 4 * limit
        behind = window - len(self.after)
        return [
            "before " * 5 + self.secret + " " * (behind - left) + self.after
            for left in range(min(behind, len(self.secret)) + 1)
        ]


@pytest.mark.parametrize("secret", WORDS_ONLY.values(), ids=WORDS_ONLY)
def test_a_secret_at_the_cut_is_removed(secret: str) -> None:
    """Where a long text is cut in the middle of a secret, its rest is not kept either."""
    # What follows is long, and short once it is scrubbed: so the rest would be within the limit.
    limit = 60
    cuts = Cut(secret, " whsec_" + "B" * (4 * limit - 100))

    texts = cuts.texts(limit)
    assert len(texts) > 20
    assert all(leftovers(text) for text in texts)
    assert [text for text in texts if leftovers(scrub(text, limit))] == []


WORDS = st.sampled_from(
    [*WORDS_ONLY.values(), "a", "failed:", "\n", "word " * 9, "whsec_" + "B" * 99]
)


@given(st.lists(WORDS, max_size=12), st.integers(20, 120))
def test_nothing_of_a_secret_is_left(words: list[str], limit: int) -> None:
    """In any mixture of secrets and words, cut anywhere, no piece of a secret is left."""
    scrubbed = scrub(" ".join(words), limit)

    assert leftovers(scrubbed) == []
    assert len(scrubbed) <= limit


@given(st.text(alphabet=st.characters()), st.integers(4, 50))
def test_scrubbing_is_total_and_bounded(text: str, limit: int) -> None:
    """Whatever the text, the result is short, can be encoded and has no NUL."""
    scrubbed = scrub(text, limit)

    assert len(scrubbed) <= limit
    assert "\0" not in scrubbed
    assert scrubbed.encode("utf-8").decode() == scrubbed


def test_the_end_is_kept() -> None:
    """Of a long text the end is kept, for there a traceback says what happened."""
    text = "".join(f"line {number}\n" for number in range(1000))

    assert scrub(text, 100) == "..." + text[-97:]
    assert scrub(text[:100], 100) == text[:100]
    assert scrub("\ud800 a\0b", 100) == "? a\\0b"


@pytest.mark.parametrize("length", [101, 200, 399, 400])
def test_the_start_is_kept_where_nothing_was_cut(length: int) -> None:
    """A text that is short once it is scrubbed is kept from its first word on."""
    text = "at first whsec_".ljust(length, "B")

    assert scrub(text, 100) == "at first ***"


DEAR: dict[str, Callable[[int], str]] = {
    "a secret without end": lambda size: "whsec_" + "a" * size,
    "beginnings of secrets": lambda size: "whsec_ sk- anm_live_ bearer " * (size // 28),
    "a URL without end": lambda size: "://" + "a" * size,
    "a URL of colons": lambda size: "://" + "a:" * (size // 2),
    "URLs": lambda size: "://a:b" * (size // 6),
    "at signs": lambda size: "://" + "a:b@" * (size // 4),
    "names": lambda size: "token=" * (size // 6),
    "quotes that never end": lambda size: "password='" * (size // 10),
    "quotes with newlines": lambda size: "password='\n" * (size // 11),
    "names in quotes": lambda size: 'token": "' * (size // 9),
    "spaces": lambda size: "token" + " " * size,
    "bearers": lambda size: "bearer " * (size // 7),
    "letters": lambda size: "a" * size,
    "NULs": lambda size: "\0" * size,
}


@pytest.mark.parametrize("make", DEAR.values(), ids=DEAR)
def test_scrubbing_takes_linear_time(make: Callable[[int], str]) -> None:
    """However a text is made, twice its size takes about twice the time."""
    assert growth(lambda text: scrub(text, len(text)), make, 2_000) < STILL_LINEAR


@pytest.mark.parametrize("make", DEAR.values(), ids=DEAR)
def test_a_huge_text_costs_what_is_kept(make: Callable[[int], str]) -> None:
    """Of a megabyte only as much is looked at as the limit asks for."""
    of_a_megabyte = growth(lambda text: scrub(text, 1000), make, 128_000)

    assert of_a_megabyte < 3
