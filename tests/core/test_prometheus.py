"""Observations as metrics: what is counted, and what no label holds."""

import pytest
from test_telemetry import HASH, OTHER_HASH, attempted, ended

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

prometheus_client = pytest.importorskip("prometheus_client")


def exposed(*observations: Observation) -> dict[str, float]:
    """The samples that observations lead to, without those of time of creation and buckets."""
    from animica_hooks.telemetry.prometheus import Prometheus

    registry = prometheus_client.CollectorRegistry()
    observer = Prometheus(registry)
    for observation in observations:
        observer(observation)
    lines = prometheus_client.generate_latest(registry).decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {
        name.removeprefix("animica_hooks_"): float(value)
        for name, _, value in samples
        if "_created" not in name and "_bucket" not in name
    }


def test_metrics_count_what_happens() -> None:
    """Deliveries, verifications, rejections and attempts are counted by their few labels."""
    seen = exposed(
        Stored({"new": 2, "duplicate": 1}, {"ab12": 3}),
        Stored({"new": 1}, {"ab12": 1}, {"a.b": 1}, {"key= raised KeyError": 2}),
        Rejected("invalid_signature", "mismatch"),
        Rejected("invalid_signature", "mismatch"),
        attempted("complete"),
        attempted("bury", "ValueError"),
        Fenced(2),
        SlowWriter("shop.h", 1.5),
        Conflicted("animica", "evt_1", HASH, OTHER_HASH),
        Quarantined("animica", "it is not JSON", HASH),
    )

    assert seen == {
        'deliveries_total{receipt="new"}': 3,
        'deliveries_total{receipt="duplicate"}': 1,
        'verified_total{secret="ab12"}': 4,
        'rejected_total{code="invalid_signature",reason="mismatch"}': 2,
        'attempts_total{handler="shop.h",verb="complete"}': 1,
        'attempts_total{handler="shop.h",verb="bury"}': 1,
        'attempt_seconds_count{handler="shop.h"}': 2,
        'attempt_seconds_sum{handler="shop.h"}': 0.5,
        "no_handler_total": 1,
        "unkeyed_total": 2,
        "fenced_total": 2,
        "slow_writers_total": 1,
    }


def test_nothing_that_a_sender_chooses_is_a_label() -> None:
    """Ids, types, reasons and hashes would make a time series each."""
    seen = exposed(
        Conflicted("animica", "CANARY", "CANARY", "CANARY"),
        Quarantined("animica", "CANARY", "CANARY"),
        Attempted([ended("bury", "CANARY", "CANARY")._replace(event_id="CANARY")]),
    )

    assert "CANARY" not in str(seen)
