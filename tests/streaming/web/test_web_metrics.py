"""Metrics: what Prometheus reads, under names that must not change."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from webstage import Script, ask, frame, prediction, served, source, until

from edge_resnet.streaming.records import SinkStatus
from edge_resnet.streaming.web import WebSink

#: Dashboards and alerts are built on these: a change here breaks them.
GOLDEN = {
    "edge_resnet_build_info": ("gauge", {"version", "artifact", "backend", "precision"}),
    "edge_resnet_uptime_seconds": ("gauge", set()),
    "edge_resnet_ready": ("gauge", set()),
    "edge_resnet_predictions": ("counter", set()),
    "edge_resnet_frames_per_second": ("gauge", set()),
    "edge_resnet_source_frames": ("counter", {"source"}),
    "edge_resnet_source_predicted": ("counter", {"source"}),
    "edge_resnet_source_dropped": ("counter", {"source"}),
    "edge_resnet_source_lost": ("counter", {"source"}),
    "edge_resnet_source_reconnects": ("counter", {"source"}),
    "edge_resnet_source_frames_per_second": ("gauge", {"source"}),
    "edge_resnet_source_last_frame_age_seconds": ("gauge", {"source"}),
    "edge_resnet_source_frozen": ("gauge", {"source"}),
    "edge_resnet_source_black": ("gauge", {"source"}),
    "edge_resnet_source_state": ("gauge", {"source", "state"}),
    "edge_resnet_sink_written": ("counter", {"sink"}),
    "edge_resnet_sink_lost": ("counter", {"sink"}),
    "edge_resnet_latency_seconds": ("histogram", {"source"}),
    "edge_resnet_age_seconds": ("histogram", {"source"}),
    "edge_resnet_web_clients": ("gauge", {"kind"}),
    "edge_resnet_web_events_lost": ("counter", set()),
}


def _scrape(sink: WebSink) -> dict[str, Metric]:
    answer = ask(sink.url, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def _value(families: dict[str, Metric], name: str, suffix: str = "", **labels: str) -> float:
    (value,) = (s.value for s in families[name].samples if s.name == name + suffix and s.labels.items() >= labels.items())
    return value


def test_the_names_are_kept() -> None:
    """Names, types and labels are exactly those of the list."""
    with served() as sink:
        sink.write(prediction(), frame())
        families = _scrape(sink)
    found = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in families.items()
    }
    assert found == GOLDEN
    assert all(family.documentation for family in families.values())


def test_the_values_are_the_runs() -> None:
    """Counters, gauges and states are those of the status."""
    with served() as sink:
        families = _scrape(sink)
    assert _value(families, "edge_resnet_source_frames", "_total", source="camera:0") == 120
    assert _value(families, "edge_resnet_source_dropped", "_total", source="camera:0") == 18
    assert _value(families, "edge_resnet_source_reconnects", "_total", source="camera:0") == 1
    assert _value(families, "edge_resnet_sink_lost", "_total", sink="jsonl") == 2
    assert _value(families, "edge_resnet_source_state", state="live") == 1
    assert sum(sample.value for sample in families["edge_resnet_source_state"].samples) == 1
    assert _value(families, "edge_resnet_build_info", precision="int8", artifact="resnet50-int8") == 1
    assert _value(families, "edge_resnet_ready") == 1


def test_histograms_count_every_prediction() -> None:
    """Latency is the sum of the stages, age starts at the capture; both in seconds, in cumulative buckets."""
    with served() as sink:
        for index in range(50):
            sink.write(prediction(index), frame(index))
        families = _scrape(sink)
    assert _value(families, "edge_resnet_latency_seconds", "_count") == 50
    assert _value(families, "edge_resnet_latency_seconds", "_sum") == pytest.approx(50 * 0.0066)
    assert _value(families, "edge_resnet_latency_seconds", "_bucket", le="0.005") == 0
    assert _value(families, "edge_resnet_latency_seconds", "_bucket", le="0.01") == 50
    assert _value(families, "edge_resnet_age_seconds", "_sum") == pytest.approx(50 * 0.04)
    buckets = [s for s in families["edge_resnet_age_seconds"].samples if s.name.endswith("_bucket")]
    assert [sample.value for sample in buckets] == sorted(sample.value for sample in buckets)
    assert buckets[-1].labels["le"] == "+Inf"


def test_odd_names_do_not_spoil_the_scrape() -> None:
    """Quotes, line breaks, invalid bytes, and two sources of one name: each series is whole and separate."""
    names = ('a "quoted"\\\nname', "no text \udcff", "twice", "twice", "twice #2")
    script = Script()
    script.change(
        sources=tuple(source(name) for name in names),
        sinks=(SinkStatus("jsonl", 1, 0, ""), SinkStatus("jsonl", 2, 0, "")),
        artifact="\udcff",
    )
    with served(script) as sink:
        families = _scrape(sink)
    labels = [sample.labels["source"] for sample in families["edge_resnet_source_frames"].samples]
    assert labels == ['a "quoted"\\\nname', "no text ?", "twice", "twice #2", "twice #2 #2"]
    assert len({sample.labels["sink"] for sample in families["edge_resnet_sink_written"].samples}) == 2


def test_a_source_before_its_first_frame_has_no_age() -> None:
    """NaN, since zero would mean a frame of just now."""
    script = Script()
    with served(script) as sink:
        before = script.status.sources[0]
        script.change(sources=(type(before)(**{**vars(before), "last_frame_age_s": None}),))
        assert until(lambda: 'edge_resnet_source_last_frame_age_seconds{source="camera:0"} NaN' in ask(sink.url, "/metrics").text)
