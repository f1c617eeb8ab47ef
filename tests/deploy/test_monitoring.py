"""Monitoring: promtool accepts the files, the alerts fire when they should, and all metric names exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from boards import DEPLOY

from edge_resnet.core.statistics import LatencyStats
from edge_resnet.streaming.records import RunStatus, SinkStatus, SourceStatus

MONITORING = DEPLOY / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
SERIES = {"instance": "device:8080", "job": "edge-resnet"}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def _queries() -> list[str]:
    return [target["expr"] for panel in _dashboard()["panels"] for target in panel["targets"]]


def _names(text: str) -> set[str]:
    return set(re.findall(r"\bedge_resnet_[a-z0-9_]+", text))


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every metric of a running service, and its labels."""
    pytest.importorskip("prometheus_client", reason="the web page's packages are not installed: pip install 'edge-resnet[web]'")
    from edge_resnet.streaming.web.metrics import Clients, Metrics

    times = LatencyStats(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    source = SourceStatus("camera:0", "live", 1, 1, 0, 0, 0, 30.0, 0.1, False, False, "")
    sinks = (SinkStatus("jsonl", 1, 0, ""),)
    status = RunStatus("a", "tensorrt", "int8", 1.0, True, 1, 30.0, times, times, {}, (source,), sinks)
    text = Metrics(lambda: status, lambda: Clients(0, 0, 0)).text().decode("utf-8")
    found = re.findall(r"^(edge_resnet_\w+)(?:\{(.*)\})? ", text, re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in found}


def _assert_exported(expressions: list[str], exported: dict[str, set[str]]) -> None:
    assert expressions
    for expression in expressions:
        names = _names(expression)
        assert names - exported.keys() == set(), expression
        for label in {"source", "sink", "state"} & set(re.findall(r"\w+", expression)):
            assert all(label in exported[name] for name in names if name != "edge_resnet_build_info"), f"{label}: {expression}"


def test_every_name_in_the_alerts_is_exported(exported: dict[str, set[str]]) -> None:
    """A rule on a metric or a label that is not exported would never fire."""
    _assert_exported([rule["expr"].split(" unless ")[0] for rule in _rules()], exported)
    assert {"source", "state"} <= exported["edge_resnet_source_state"]


def test_every_name_in_the_dashboard_is_exported(exported: dict[str, set[str]]) -> None:
    """A panel or variable on a metric or a label that is not exported would be empty."""
    variables = [item["definition"] for item in _dashboard()["templating"]["list"] if "definition" in item]
    _assert_exported([*_queries(), *variables], exported)


def test_every_alert_says_what_and_how_bad() -> None:
    """A name of our own, a severity, and a summary that names the device."""
    rules = _rules()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 6
    for rule in rules:
        assert rule["alert"].startswith("EdgeResnet")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert "$labels.instance" in rule["annotations"]["summary"]


def test_the_scrape_config_uses_a_token_file_and_the_rules() -> None:
    """The file contains no token, names existing rules, and has the job that the alerts use."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert set(job["authorization"]) == {"type", "credentials_file"}
    assert job["authorization"]["type"] == "Bearer"
    assert all((MONITORING / name).is_file() for name in config["rule_files"])
    assert f'job="{job["job_name"]}"' in ALERTS.read_text(encoding="utf-8")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Ids are unique, every query uses the selected data source, and each panel has a description."""
    dashboard = _dashboard()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert "id" not in dashboard, "an id belongs to one Grafana"
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert {item["name"] for item in dashboard["templating"]["list"]} == {"datasource", "instance", "source"}


def test_the_dashboards_panels_do_not_overlap() -> None:
    """No cell of the 24 columns belongs to two panels."""
    cells = [cell for panel in _dashboard()["panels"] for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def _cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(position["x"], position["x"] + position["w"]):
        for y in range(position["y"], position["y"] + position["h"]):
            yield x, y


def test_every_state_has_a_name_in_the_dashboard() -> None:
    """The timeline shows every state of a source."""
    from typing import get_args

    from edge_resnet.streaming.records import SourceState

    (timeline,) = [panel for panel in _dashboard()["panels"] if panel["type"] == "state-timeline"]
    shown = {item["text"] for item in timeline["fieldConfig"]["defaults"]["mappings"][0]["options"].values()}
    assert shown == set(re.findall(r'state="(\w+)"', timeline["targets"][0]["expr"])) == set(get_args(SourceState))


@pytest.fixture(scope="module")
def promtool() -> str:
    """promtool, or a skip."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (package prometheus)")
    return found


def _run(*words: str, cwd: Path) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_takes_the_config(promtool: str, tmp_path: Path) -> None:
    """The configuration and the rules are valid; the token file is in a folder of the test."""
    text = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "token").write_text("secret", encoding="utf-8")
    path = "/etc/prometheus/edge-resnet.token"
    (tmp_path / "prometheus.yml").write_text(
        text.replace(f"credentials_file: {path}", "credentials_file: token"), encoding="utf-8"
    )
    shutil.copy(ALERTS, tmp_path)
    _run(promtool, "check", "config", "prometheus.yml", cwd=tmp_path)


def test_promtool_reads_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """Each is a valid expression once Grafana has filled in its variables."""
    filled = [
        query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$source", ".*")
        for query in _queries()
    ]  # fmt: skip
    assert not [query for query in filled if "$" in query]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(filled)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    _run(promtool, "check", "rules", "--lint-fatal", "rules.yml", cwd=tmp_path)


def _name(alert: str, ending: str) -> str:
    """The metric with that ending in an alert's expression."""
    (rule,) = [rule for rule in _rules() if rule["alert"] == alert]
    return next(name for name in sorted(_names(rule["expr"])) if re.search(ending, name))


def _series(name: str, values: str, **labels: str) -> dict[str, str]:
    inner = ", ".join(f'{key}="{value}"' for key, value in {**SERIES, **labels}.items())
    return {"series": f"{name}{{{inner}}}", "values": values}


def _histogram(name: str, bounds: dict[str, int]) -> list[dict[str, str]]:
    """Bounds → observations per minute that do not exceed them."""
    return [_series(f"{name}_bucket", f"0+{step}x60", source="cam", le=bound) for bound, step in bounds.items()]


def _state(state: str) -> list[dict[str, str]]:
    return [
        _series("edge_resnet_source_state", f"{int(name == state)}x60", source="cam", state=name)
        for name in ("live", "reconnecting", "stalled", "ended", "failed")
    ]


#: Alert, the series that are to fire it, those that are not to, and labels of the alert. A sample a minute, looked at after 30.
CASES: list[tuple[str, list[dict[str, str]], list[dict[str, str]], dict[str, str]]] = [
    ("EdgeResnetUnreachable", [_series("up", "0x60")], [_series("up", "1x60")], {}),
    ("EdgeResnetNoPredictions", [_series("{predict}", "500x60", source="cam"), *_state("live")],
     [_series("{predict}", "0+1800x60", source="cam"), *_state("live")], {"source": "cam"}),
    ("EdgeResnetNoPredictions", [_series("{predict}", "500x60", source="cam"), *_state("reconnecting")],
     [_series("{predict}", "500x60", source="cam"), *_state("ended")], {"source": "cam"}),
    ("EdgeResnetCameraAway", _state("reconnecting"), _state("live"), {"source": "cam"}),
    ("EdgeResnetCameraAway", _state("failed"), _state("ended"), {"source": "cam"}),
    ("EdgeResnetCameraUnsteady", [_series("{reconnect}", "0+1x60", source="cam")],
     [_series("{reconnect}", "0x15 1x45", source="cam")], {"source": "cam"}),
    ("EdgeResnetAnswersLost", [_series("{lost}", "0+5x60", sink="mqtt")], [_series("{lost}", "0x5 7x55", sink="mqtt")],
     {"sink": "mqtt"}),
    ("EdgeResnetMostFramesDropped",
     [_series("{dropped}", "0+1200x60", source="cam"), _series("{frames}", "0+1800x60", source="cam")],
     [_series("{dropped}", "0+600x60", source="cam"), _series("{frames}", "0+1800x60", source="cam")], {"source": "cam"}),
    ("EdgeResnetSlow", _histogram("edge_resnet_latency_seconds", {"0.1": 90, "1": 100, "+Inf": 100}),
     _histogram("edge_resnet_latency_seconds", {"0.1": 100, "1": 100, "+Inf": 100}), {}),
    ("EdgeResnetAnswersOld", _histogram("edge_resnet_age_seconds", {"1": 90, "10": 100, "+Inf": 100}),
     _histogram("edge_resnet_age_seconds", {"1": 100, "10": 100, "+Inf": 100}), {"source": "cam"}),
    ("EdgeResnetRestarting", [_series("{predict}", "5 6 0 1 0 1 0 1 0 1 0 1x50", source="cam")],
     [_series("{predict}", "5 6 0 1x57", source="cam")], {}),
]  # fmt: skip


def test_every_alert_is_tried() -> None:
    """There is a case for each."""
    assert {case[0] for case in CASES} == {rule["alert"] for rule in _rules()}


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "is silent"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_alerts_fire_when_they_should(promtool: str, tmp_path: Path, case: tuple[Any, ...], fires: bool) -> None:
    """The alert fires after half an hour of the fault, and not in half an hour without it."""
    alert, bad, good, labels = case
    (rule,) = [rule for rule in _rules() if rule["alert"] == alert]
    named = re.sub(
        r"\{(predict|reconnect|lost|dropped|frames)\}", lambda m: _name(alert, m[1]), json.dumps(bad if fires else good)
    )
    series = json.loads(named)
    fired = {"exp_labels": {**_kept(rule["expr"]), **labels, "severity": rule["labels"]["severity"]}}
    # promtool compares the texts too, which are the rule's own and no behaviour.
    (tmp_path / "alerts.yml").write_text(_without_texts(), encoding="utf-8")
    check = {"eval_time": "30m", "alertname": alert, "exp_alerts": [fired] if fires else []}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [check]}
    content = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    _run(promtool, "test", "rules", "test.yml", cwd=tmp_path)


def _kept(expression: str) -> dict[str, str]:
    """The labels that an expression keeps: all of them, or what it sums by."""
    return {"instance": SERIES["instance"]} if " by " in expression else SERIES


def _without_texts() -> str:
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    for group in content["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    return yaml.safe_dump(content)
