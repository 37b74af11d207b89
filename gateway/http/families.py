"""Metrics of one name, as Prometheus takes them, from values by labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_By = TypeVar("_By", bound=tuple[str, ...])
"""Values of the labels."""


def gauge(name: str, what: str, labels: list[str], values: Mapping[_By, float]) -> Metric:
    """Return what may rise and fall."""
    family = GaugeMetricFamily(name, what, labels=labels)
    for by, value in values.items():
        family.add_metric(by, value)
    return family


def counter(name: str, what: str, labels: list[str], values: Mapping[_By, float]) -> Metric:
    """Return what only rises."""
    family = CounterMetricFamily(name, what, labels=labels)
    for by, value in values.items():
        family.add_metric(by, value)
    return family
