"""Shows that the harness measures what it claims to, with clients that have a flaw of known size.

A planted slowdown must be measured as what it is, beside the same client without it; what returns
something else than was sent, or dies, must have no figure; and what keeps something must be found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.sdk.contestants import Contestant
from benchmarks.sdk.crew import Breakdown, crew
from benchmarks.sdk.serving import Serving
from benchmarks.sdk.soak import FULL, WARM_UP, soak
from benchmarks.sdk.start import start

ROUNDS = 5
SECONDS = 0.15
# How far a slowdown's measured size may be off, and how far two equal clients may be apart.
TOLERANCE = 0.35
NONE = "none"

Check = Callable[[Serving], str | None]


def planted(flaw: str) -> Contestant:
    """Return ours with a flaw."""
    return Contestant(
        name=f"planted-{flaw}",
        about="ours with a planted flaw",
        module="planted",
        packages=("animica_hooks",),
        environment={"PLANTED": flaw},
    )


def main() -> int:
    """Run all checks and say how each went; return the exit status."""
    with TemporaryDirectory() as folder, Serving(Path(folder)) as serving:
        outcomes = [_run(about, check, serving) for about, check in CHECKS.items()]
    return 0 if all(outcomes) else 1


def _run(about: str, check: Check, serving: Serving) -> bool:
    wrong = check(serving)
    print(f"ok: {about}" if wrong is None else f"NOT OK: {about}: {wrong}", flush=True)
    return wrong is None


def equal(serving: Serving) -> str | None:
    """Compare a client with itself."""
    first, second = _costs(serving, "request", NONE, NONE)
    return _unless_near(second / first, 1)


def slower(measure: str, flaw: str, added_us: float) -> Check:
    """Return the check of a slowdown in a client's work."""

    def check(serving: Serving) -> str | None:
        without, with_flaw = _costs(serving, measure, NONE, flaw)
        return _unless_near(with_flaw - without, added_us)

    return check


def slower_import(serving: Serving) -> str | None:
    """Compare a client with one that takes longer to import."""
    found: dict[str, list[float]] = {NONE: [], "import": []}
    for _ in range(ROUNDS):
        for flaw, values in found.items():
            result = start(planted(flaw), serving)
            if isinstance(result, Breakdown):
                return str(result)
            values.append(result["import"])
    return _unless_near(median(found["import"]) - median(found[NONE]), 100)


def refused(measure: str, flaw: str, word: str) -> Check:
    """Return the check of a client that must have no figure."""

    def check(serving: Serving) -> str | None:
        with crew([planted(flaw)], serving) as members:
            answer = members[0].measure(measure, SECONDS)
        found = str(answer.get("failure"))
        return None if word in found else f"answered {answer}"

    return check


def kept(flaw: str, measure: str, amount: float) -> Check:
    """Return the check of a client that keeps something."""

    def check(serving: Serving) -> str | None:
        clean, found = soak(planted(NONE), serving), soak(planted(flaw), serving)
        if isinstance(clean, Breakdown) or isinstance(found, Breakdown):
            return f"{clean}, {found}"
        return _unless_near(found[measure] - clean[measure], amount)

    return check


def _costs(serving: Serving, measure: str, *flaws: str) -> list[float]:
    """Return the medians of what these cost, in turns."""
    with crew([planted(flaw) for flaw in flaws], serving) as members:
        rounds = [[m.measure(measure, SECONDS)["cpu_us"] for m in members] for _ in range(ROUNDS)]
    return [median(values) for values in zip(*rounds, strict=True)]


def _unless_near(found: float, expected: float) -> str | None:
    if abs(found - expected) <= TOLERANCE * expected:
        return None
    return f"measured {found:.2f}, not about {expected:g}"


# Every client asks once when it is made for a soak, besides the requests.
ASKED = FULL[0] + FULL[2]
CHECKS: dict[str, Check] = {
    "a client costs what it costs": equal,
    "300 us more for each request": slower("request", "request", 300),
    "300 us more for each request over TLS": slower("tls", "request", 300),
    "20 us more for each chunk of a burst": slower("burst", "chunk", 20),
    "200 us more for each live chunk": slower("live", "live-chunk", 200),
    "100 ms more to import": slower_import,
    "does not read the answer": refused("request", "wrong", "not what was sent"),
    "does not read the stream": refused("burst", "short", "not what was sent"),
    "dies": refused("request", "dies", "died"),
    "keeps 2 KB of each request": kept("memory", "soak-memory", ASKED * 2_000 / 2**20),
    "keeps on keeping": kept("memory", "soak-memory-again", ASKED * 2_000 / 2**20),
    "keeps a descriptor of each client": kept(
        "descriptors", "soak-descriptors", 1 + WARM_UP[2] + 2 * FULL[2]
    ),
}
