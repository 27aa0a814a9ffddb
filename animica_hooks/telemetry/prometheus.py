"""Observations as Prometheus metrics: ``Hooks(observers=[Prometheus()])``, with ``[metrics]``.

They go to ``prometheus_client``'s default registry, or the one given; serving them is the app's
(``prometheus_client.make_asgi_app()``).
"""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from animica_hooks.telemetry import (
    Attempted,
    Conflicted,
    Fenced,
    Observation,
    Quarantined,
    Rejected,
    SlowWriter,
    Stored,
)

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Prometheus:
    """Counts observations. No label holds anything that a sender chooses.

    =============================================  ====================================
    ``animica_hooks_deliveries_total{receipt}``    new, duplicate, conflict, quarantined
    ``animica_hooks_verified_total{secret}``       by the id of the secret that signed
    ``animica_hooks_rejected_total{code,reason}``  requests answered with an error
    ``animica_hooks_attempts_total{handler,verb}`` complete, retry, bury, cancel, release
    ``animica_hooks_attempt_seconds{handler}``     how long handlers ran
    ``animica_hooks_no_handler_total``             deliveries that no handler takes
    ``animica_hooks_unkeyed_total``                jobs that are dead letters for want of a key
    ``animica_hooks_fenced_total``                 marks that came after the lease
    ``animica_hooks_slow_writers_total``           sessions that kept deliveries waiting
    =============================================  ====================================
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"animica_hooks_{name}", about, labels, registry=registry)

        self._deliveries = counter("deliveries", "Deliveries committed", "receipt")
        self._verified = counter("verified", "Deliveries by signing secret", "secret")
        self._rejected = counter("rejected", "Requests refused", "code", "reason")
        self._no_handler = counter("no_handler", "Deliveries that no handler takes")
        self._unkeyed = counter("unkeyed", "Jobs that are dead letters for want of a key")
        self._fenced = counter("fenced", "Marks that came too late")
        self._slow_writers = counter("slow_writers", "Writers who kept deliveries waiting")
        attempts = counter("attempts", "Attempts ended", "handler", "verb")
        seconds = Histogram(
            "animica_hooks_attempt_seconds",
            "How long handlers ran",
            ["handler"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        # Finding a metric's child by its labels costs more than counting.
        self._attempts = cache(attempts.labels)
        self._seconds = cache(seconds.labels)

    def __call__(self, observation: Observation) -> None:
        match observation:
            case Attempted(attempts):
                for attempt in attempts:
                    self._attempts(attempt.handler, attempt.verb).inc()
                    self._seconds(attempt.handler).observe(attempt.seconds)
            case Stored(receipts, secrets, no_handler, unkeyed):
                self._unkeyed.inc(sum(unkeyed.values()))
                self._no_handler.inc(sum(no_handler.values()))
                for receipt, number in receipts.items():
                    self._deliveries.labels(receipt).inc(number)
                for secret, number in secrets.items():
                    self._verified.labels(secret).inc(number)
            case Rejected(code, reason):
                self._rejected.labels(code, reason).inc()
            case Fenced(number):
                self._fenced.inc(number)
            case SlowWriter():
                self._slow_writers.inc()
            case Conflicted() | Quarantined():
                pass  # counted as receipts
