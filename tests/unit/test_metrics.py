from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar.metrics import MAX_CHILDREN, OTHER, Registry, SidecarMetrics


def samples(registry: Registry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What an independent parser reads from the page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(registry.render().decode())
        for sample in family.samples
    }


def value(registry: Registry, name: str, **labels: str) -> float:
    return samples(registry)[name, frozenset(labels.items())]


@pytest.mark.parametrize(
    "name",
    [
        "requests_total",
        "sidecar_Requests_total",
        "sidecar_x",
        "sidecar__x_total",
        "sidecar_x_total\n",
        "sidecar",
    ],
)
def test_names_that_do_not_fit_a_counter(name):
    with pytest.raises(ValueError, match="no name"):
        Registry().counter(name, "help")


def test_a_gauge_is_not_named_as_a_counter():
    with pytest.raises(ValueError, match="no name"):
        Registry().gauge("sidecar_x_total", "help")


@pytest.mark.parametrize(
    ("labels", "text"), [(("Bad",), "h"), (("le",), "h"), (("a-b",), "h"), ((), "two\nlines")]
)
def test_labels_and_help_that_the_format_does_not_take(labels, text):
    with pytest.raises(ValueError, match="does not take"):
        Registry().gauge("sidecar_x", text, labels)


def test_one_name_one_metric():
    registry = Registry()
    registry.counter("sidecar_x_total", "help")
    with pytest.raises(ValueError, match="exists"):
        registry.counter("sidecar_x_total", "help")


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), (1, math.inf)])
def test_buckets_ascend_and_end(buckets):
    with pytest.raises(ValueError, match="buckets"):
        Registry().histogram("sidecar_x_seconds", "help", buckets=buckets)


def test_the_number_of_label_values_is_checked():
    with pytest.raises(ValueError, match="labels"):
        Registry().counter("sidecar_x_total", "help", ("a", "b")).labels("1")


def test_only_gauges_are_collected():
    with pytest.raises(ValueError, match="only gauges"):
        Registry().counter("sidecar_x_total", "help").collect(list)


def test_strangers_cannot_grow_a_metric():
    registry = Registry()
    counter = registry.counter("sidecar_x_total", "help", ("caller",))
    for number in range(MAX_CHILDREN + 500):
        counter.labels(f"c{number}").inc()
    found = samples(registry)
    assert len(found) == MAX_CHILDREN + 1
    assert value(registry, "sidecar_x_total", caller=OTHER) == 500
    assert counter.labels("c0") is not counter.labels("new")
    assert counter.labels("new") is counter.labels("newer") is counter.labels(OTHER)


def test_a_collected_gauge_is_bounded_too():
    registry = Registry()
    registry.gauge("sidecar_x", "help", ("grant",)).collect(
        lambda: [((str(n),), n) for n in range(MAX_CHILDREN * 2)]
    )
    assert len(samples(registry)) == MAX_CHILDREN


def test_counters_and_gauges():
    registry = Registry()
    plain = registry.counter("sidecar_x_total", "help").labels()
    gauge = registry.gauge("sidecar_y", "help", ("a", "b")).labels("1", "2")
    plain.inc()
    plain.inc(41)
    gauge.set(2.5)
    gauge.inc()
    gauge.dec(0.5)
    assert value(registry, "sidecar_x_total") == 42
    assert value(registry, "sidecar_y", a="1", b="2") == 3.0


def test_gauges_that_are_asked():
    registry = Registry()
    registry.gauge("sidecar_x", "help").labels().set_function(lambda: 7)
    registry.gauge("sidecar_y", "help", ("grant",)).collect(lambda: [(("aa",), 1.5), (("bb",), 2)])
    assert value(registry, "sidecar_x") == 7
    assert value(registry, "sidecar_y", grant="aa") == 1.5
    assert value(registry, "sidecar_y", grant="bb") == 2


def test_histogram_bounds_are_inclusive_and_cumulative():
    registry = Registry()
    child = registry.histogram("sidecar_x_seconds", "help", ("direction",), buckets=(0.1, 1)).labels("in")
    for seconds in (0.05, 0.1, 0.5, 1.0, 3.0):
        child.observe(seconds)
    assert value(registry, "sidecar_x_seconds_bucket", direction="in", le="0.1") == 2
    assert value(registry, "sidecar_x_seconds_bucket", direction="in", le="1") == 4
    assert value(registry, "sidecar_x_seconds_bucket", direction="in", le="+Inf") == 5
    assert value(registry, "sidecar_x_seconds_count", direction="in") == 5
    assert value(registry, "sidecar_x_seconds_sum", direction="in") == pytest.approx(4.65)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_any_label_value_survives_the_page(text):
    registry = Registry()
    registry.gauge("sidecar_x", "help", ("a",)).labels(text).set(1)
    page = registry.render().decode()
    assert len(page.split("\n")) == 4  # the parser splits lines at more characters than the format does
    if text.isprintable():
        assert value(registry, "sidecar_x", a=text) == 1


@given(st.floats())
def test_any_number_survives_the_page(number):
    registry = Registry()
    registry.gauge("sidecar_x", "help").labels().set(number)
    assert value(registry, "sidecar_x") == pytest.approx(number, nan_ok=True, rel=0, abs=0)


def test_an_empty_registry_is_an_empty_page():
    assert Registry().render() == b""


def test_the_sidecars_own_metrics_parse():
    metrics = SidecarMetrics()
    metrics.requests.labels("inbound", "GET", "200", "allow", "policy").inc()
    metrics.request_duration.labels("inbound").observe(0.003)
    metrics.build_info.labels("1", "3").set(1)
    page = metrics.registry.render().decode()
    families = {family.name for family in text_string_to_metric_families(page)}
    assert families == {name.removesuffix("_total") for name in metrics.registry.names}
    assert page.endswith("\n") and page.count("# HELP") == len(metrics.registry.names)
