"""Counters, gauges and histograms with bounded labels, and the names that the sidecar exports. No I/O.

Made for a hot path on one event loop: a child is looked up once (per connection, per route) and kept; ``inc``
is one addition and ``observe`` one bisection and two additions. Not for use from other threads.

Labels come from closed sets or from what the policy registers, never from a stranger's input; beyond
:data:`MAX_CHILDREN` label sets per metric the rest is counted under ``other``. Text format: Prometheus 0.0.4.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

MAX_CHILDREN = 1000
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"sidecar(_[a-z0-9]+)+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, n: int = 1) -> None:
        """Adds ``n``, which is not negative."""
        self.value += n


class Gauge:
    """A number that goes up and down, set or asked for when the page is made."""

    __slots__ = ("_function", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self._function: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self.value = value

    def inc(self, n: float = 1) -> None:
        self.value += n

    def dec(self, n: float = 1) -> None:
        self.value -= n

    def set_function(self, function: Callable[[], float]) -> None:
        """From now on the value is what ``function`` says; it is called at each scrape and must be quick."""
        self._function = function

    def read(self) -> float:
        """The value as the page shows it."""
        return self.value if self._function is None else self._function()


class Histogram:
    """How often a value fell below each of a few bounds, and the sum of all values."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts ``value``; a bound is inclusive, as Prometheus has it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


Child = TypeVar("Child", bound=Counter | Gauge | Histogram)


class Family(Generic[Child]):
    """One metric: its name, help, label names, and a child per set of label values."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], kind: str, make: Callable[[], Child]
    ) -> None:
        if not _NAME.fullmatch(name) or (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name!r} is no name for a {kind}")
        if any(not _LABEL.fullmatch(label) or label == "le" for label in labels) or "\n" in help_text:
            raise ValueError(f"{name!r} has a label or help that the format does not take")
        self.name = name
        self.help = help_text
        self.kind = kind
        self.label_names = tuple(labels)
        self._make = make
        self._children: dict[tuple[str, ...], Child] = {}
        self._collect: Callable[[], Iterable[tuple[Sequence[str], float]]] | None = None

    def labels(self, *values: str) -> Child:
        """The child with these label values, or the shared ``other`` when there are too many.

        About 0.2 us; keep the child where it is hot.
        """
        child = self._children.get(values)
        if child is not None:
            return child
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, got {len(values)} values")
        if len(self._children) >= MAX_CHILDREN and values:
            values = (OTHER,) * len(values)
            child = self._children.get(values)
            if child is not None:
                return child
        child = self._children[values] = self._make()
        return child

    def collect(self, function: Callable[[], Iterable[tuple[Sequence[str], float]]]) -> None:
        """For gauges whose label sets come and go: at each scrape ``function`` gives (label values, value)s.

        What it gives is shown instead of the children, at most :data:`MAX_CHILDREN` of them.
        """
        if self.kind != "gauge":
            raise ValueError(f"{self.name} is a {self.kind}; only gauges can be collected")
        self._collect = function

    def lines(self) -> Iterator[str]:
        """The metric's part of the page, line by line."""
        yield f"# HELP {self.name} {self.help.translate(_ESCAPES)}"
        yield f"# TYPE {self.name} {self.kind}"
        if self._collect is not None:
            for place, (values, value) in enumerate(self._collect()):
                if place >= MAX_CHILDREN:
                    break
                yield f"{self.name}{self._label_text(values)} {_number(value)}"
            return
        for values, child in self._children.items():
            if isinstance(child, Histogram):
                yield from self._histogram_lines(values, child)
            else:
                value = child.read() if isinstance(child, Gauge) else child.value
                yield f"{self.name}{self._label_text(values)} {_number(value)}"

    def _histogram_lines(self, values: Sequence[str], child: Histogram) -> Iterator[str]:
        total = 0
        for bound, count in zip((*child.bounds, float("inf")), child.counts, strict=True):
            total += count
            yield f"{self.name}_bucket{self._label_text(values, bound)} {total}"
        yield f"{self.name}_sum{self._label_text(values)} {_number(child.sum)}"
        yield f"{self.name}_count{self._label_text(values)} {total}"

    def _label_text(self, values: Sequence[str], bound: float | None = None) -> str:
        pairs = [
            f'{name}="{value.translate(_ESCAPES)}"'
            for name, value in zip(self.label_names, values, strict=True)
        ]
        if bound is not None:
            pairs.append(f'le="{_number(bound)}"')
        return "{" + ",".join(pairs) + "}" if pairs else ""


class Registry:
    """All metrics of one process, in the order in which they were made."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Counter]:
        """A new counter; its name ends in ``_total``. ValueError for a name that exists or does not fit."""
        family = Family(name, help_text, labels, "counter", Counter)
        self._add(family)
        return family

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Gauge]:
        """A new gauge, in base units (seconds, bytes)."""
        family = Family(name, help_text, labels, "gauge", Gauge)
        self._add(family)
        return family

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> Family[Histogram]:
        """A new histogram with ascending upper bounds; the infinite one is added."""
        bounds = tuple(float(bound) for bound in buckets)
        if not bounds or list(bounds) != sorted(set(bounds)) or bounds[-1] == float("inf"):
            raise ValueError(f"{name!r} needs ascending, finite buckets")
        family = Family(name, help_text, labels, "histogram", lambda: Histogram(bounds))
        self._add(family)
        return family

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric's name; dashboards and alerts are tested against it."""
        return tuple(self._families)

    def render(self) -> bytes:
        """The whole page. About 1 us per line: a thousand series block the loop for a millisecond."""
        lines = [line for family in self._families.values() for line in family.lines()]
        return ("\n".join(lines) + "\n").encode() if lines else b""

    def _add(self, family: Family[Counter] | Family[Gauge] | Family[Histogram]) -> None:
        if family.name in self._families:
            raise ValueError(f"{family.name!r} exists already")
        self._families[family.name] = family


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
OVERHEAD_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)


class SidecarMetrics:
    """Every metric that the sidecar exports. Times are in seconds, expiries absolute (Unix epoch)."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry = registry or Registry()
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        # fmt: off
        self.requests = counter(
            "sidecar_requests_total", "Calls, by how they ended.",
            ("direction", "method", "code", "effect", "reason"),
        )
        self.request_duration = histogram(
            "sidecar_request_duration_seconds", "From the first byte of a call to the last of its answer.",
            ("direction",), buckets=DURATION_BUCKETS_S,
        )
        self.request_overhead = histogram(
            "sidecar_request_overhead_seconds", "Part of a call's time that the sidecar itself took.",
            ("direction",), buckets=OVERHEAD_BUCKETS_S,
        )
        self.verdicts = counter("sidecar_verdicts_total", "Verdicts.", ("effect", "reason"))
        self.limits = counter("sidecar_limits_total", "How often each limit struck.", ("limit",))
        self.connections = gauge("sidecar_connections", "Open connections.", ("direction",))
        self.handshakes = counter(
            "sidecar_tls_handshakes_total", "TLS handshakes.",
            ("direction", "result", "reason"),
        )
        self.svid_not_after = gauge("sidecar_svid_not_after_timestamp_seconds", "End of the own SVID.")
        self.svid_rotations = counter(
            "sidecar_svid_rotations_total", "Attempts to take over a new SVID.",
            ("result",),
        )
        self.bundle_not_after = gauge(
            "sidecar_bundle_not_after_timestamp_seconds", "End of the longest-lived authority of a bundle.",
            ("trust_domain",),
        )
        self.policy_info = gauge("sidecar_policy_info", "The policy in force; always 1.", ("sha256",))
        self.policy_reloads = counter(
            "sidecar_policy_reloads_total", "Attempts to load the policy.",
            ("result",),
        )
        self.policy_last_reload = gauge(
            "sidecar_policy_last_reload_timestamp_seconds", "When the policy in force was loaded."
        )
        self.grants_active = gauge("sidecar_grants_active", "Break-glass grants in force.")
        self.grant_expiry = gauge(
            "sidecar_grant_expiry_timestamp_seconds", "End of a grant in force.",
            ("grant",),
        )
        self.grant_events = counter(
            "sidecar_grant_events_total", "What happened to grants.",
            ("event", "result"),
        )
        self.audit_records = counter("sidecar_audit_records_total", "Audit records.", ("sink", "result"))
        self.audit_queue_depth = gauge("sidecar_audit_queue_depth", "Audit records that wait to be written.")
        self.audit_oldest_unshipped = gauge(
            "sidecar_audit_oldest_unshipped_seconds", "Age of the oldest record that waits."
        )
        self.build_info = gauge("sidecar_build_info", "This build; always 1.", ("version", "python"))
        # fmt: on
