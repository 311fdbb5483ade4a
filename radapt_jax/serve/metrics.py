"""What `GET /metrics` tells, in the format of Prometheus."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

WINDOW = 2048  # latest answers, of which quantiles are taken
QUANTILES = (0.5, 0.9, 0.99)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one server.

    Args:
      now: returns the present value of each gauge, by name.
      programs: programs that were run, by way: alone or mixed.
    """

    def __init__(self, now: Mapping[str, Callable[[], float]], programs: Mapping[str, int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "radapt_requests",
            "Requests by address and status.",
            ("address", "status"),
            registry=self._registry,
        )
        self.images = Counter(
            "radapt_images", "Images answered, by domain.", ("domain",), registry=self._registry
        )
        self.batches = Histogram(
            "radapt_batch_images", "Images of a batch.", buckets=BATCHES, registry=self._registry
        )
        self._latencies: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._registry.register(_Now(now, programs, self._latencies))

    def answered(self, domain: str, images: int, seconds: float) -> None:
        """Count a request for a prediction that was answered."""
        self.images.labels(domain).inc(images)
        self._latencies.append(seconds)

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What is read when it is asked for: gauges, programs, and quantiles of latencies."""

    def __init__(
        self,
        gauges: Mapping[str, Callable[[], float]],
        programs: Mapping[str, int],
        latencies: Iterable[float],
    ) -> None:
        self._gauges, self._programs, self._latencies = gauges, programs, latencies

    def collect(self) -> Iterable[Metric]:
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"radapt_{name}", f"Present {name.replace('_', ' ')}.", value())
        ran = CounterMetricFamily(
            "radapt_programs", "Compiled programs that were run, by way.", labels=("way",)
        )
        for way in ("alone", "mixed"):
            ran.add_metric((way,), self._programs.get(way, 0))
        yield ran
        told = f"Seconds from a request to its answer, of the latest {WINDOW}."
        latency = GaugeMetricFamily("radapt_latency_seconds", told, labels=("quantile",))
        found = list(self._latencies)
        for quantile in QUANTILES if found else ():
            latency.add_metric((str(quantile),), float(np.quantile(found, quantile)))
        yield latency
