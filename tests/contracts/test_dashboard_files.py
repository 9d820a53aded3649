"""Grafana's dashboards and data sources, as files: whole, readable and about what there is.

That their queries give something is shown by tests/services/test_dashboards.py, which needs a real Prometheus.
"""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from deploy import dashboards
from deploy.dashboards import FOLDER, TITLES
from deploy.dashboards.panels import POSTGRES, PROMETHEUS, WIDTH
from notifier.models import Base
from notifier.storage.dashboard_role import GRANTED, ROLE, WITHHELD
from tests.support.dashboards import DASHBOARDS, FILES
from tests.support.metrics import registered
from tests.support.paths import ROOT

PANELS: dict[str, dict[str, Any]] = {
    f"{name}: {panel['title']}": panel for name, each in DASHBOARDS.items() for panel in each["panels"]
}


#: Panels that one screen shows without scrolling, in rows of the grid.
ONE_SCREEN = 26
GRAFANA = ROOT / "deploy" / "grafana" / "provisioning"
#: Metrics of Prometheus itself, and what each of our processes has from its library.
OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def targets(panel: dict[str, Any], kind: str) -> Iterator[str]:
    """The queries of a panel in one language: `expr` or `rawSql`."""
    return (target[kind] for target in panel["targets"] if kind in target)


def test_the_files_are_what_the_module_makes() -> None:
    made = dashboards.files()
    assert {file.name for file in FILES} == made.keys()
    for name, content in made.items():
        assert (FOLDER / name).read_text() == content, "make dashboards"


def test_names_are_unique_and_stable() -> None:
    assert [each["uid"] for each in DASHBOARDS.values()] == sorted(
        TITLES, key=lambda uid: uid.removeprefix("notifier-")
    )
    assert len({each["title"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert set(TITLES) == {
        "notifier-overview",
        "notifier-delivery",
        "notifier-queues",
        "notifier-dead-letters",
        "notifier-story",
    }


@pytest.mark.parametrize("name", DASHBOARDS)
def test_one_screen_shows_it(name: str) -> None:
    given = DASHBOARDS[name]
    assert given["refresh"] in {"10s", "15s", "30s"}
    assert given["schemaVersion"] == 42
    places = [panel["gridPos"] for panel in given["panels"]]
    assert max(place["y"] + place["h"] for place in places) <= ONE_SCREEN
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert sum(place["w"] * place["h"] for place in places) == WIDTH * max(p["y"] + p["h"] for p in places)
    assert len({panel["title"] for panel in given["panels"]}) == len(places)
    assert [panel["id"] for panel in given["panels"]] == list(range(1, len(places) + 1))


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_says_what_it_shows(name: str) -> None:
    panel = PANELS[name]
    assert re.match(r"\S.{3,39}$", panel["title"])
    assert len(panel["description"]) >= 60
    assert panel["description"].endswith(".")
    assert re.search(r"\b[Nn]ormal\b", panel["description"]), "what is normal?"
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] in (PROMETHEUS, POSTGRES)
    assert panel["targets"]
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)
    if panel["type"] in {"timeseries", "state-timeline"}:
        assert all(target["legendFormat"] for target in panel["targets"])
    assert panel["type"] in {"timeseries", "stat", "state-timeline", "table"}
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


@pytest.mark.parametrize("name", PANELS)
def test_metrics_and_labels_are_those_that_there_are(name: str) -> None:
    known = registered()
    for expression in targets(PANELS[name], "expr"):
        words = re.sub(r'"[^"]*"', '""', expression)
        found = set(re.findall(r"\b(?:notifier_\w+|process_\w+|up|ALERTS)\b", words))
        assert found
        allowed = {"le", "job", "instance", "alertstate"}
        for metric in found - OTHERS:
            base = metric if metric in known else re.sub(r"_(bucket|sum|count)$", "", metric)
            assert base in known, f"{metric} is no metric"
            allowed |= known[base]
            if metric == base and metric.endswith("_total"):
                assert re.search(rf"(rate|increase)\({metric}\b", words), f"{metric} only grows"
        labels = {label for group in re.findall(r"\bby \(([^)]*)\)", words) for label in re.split(r",\s*", group)}
        labels |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)", words))
        assert labels <= allowed
        assert set(re.findall(r"\[([^\]]*)\]", words)) <= {"$__rate_interval", "$__range"}
        for legend in (target["legendFormat"] for target in PANELS[name]["targets"] if target["expr"] == expression):
            named = set(re.findall(r"{{(\w+)}}", legend))
            assert named <= allowed
            assert named <= labels or "by (" not in words, f"{legend}: summed away"


def test_a_gauge_that_every_exporter_gives_is_not_added_up() -> None:
    for panel in PANELS.values():
        for expression in targets(panel, "expr"):
            for metric in re.findall(
                r"notifier_(?:live|dead_letters|breaker|queue|workers|canary|holds)\w*", expression
            ):
                if not metric.endswith("_total") and "_transitions" not in metric:
                    assert re.search(rf"(max|min)( by \([a-z, ]+\))? ?\({metric}\b", expression), expression


@pytest.mark.parametrize("name", [name for name, panel in PANELS.items() if panel["datasource"] == POSTGRES])
def test_postgres_is_asked_for_nothing_personal(name: str) -> None:
    for sql in targets(PANELS[name], "rawSql"):
        tables = set(re.findall(r"\b(?:FROM|JOIN) (\w+)", sql)) & Base.metadata.tables.keys()
        assert tables
        assert tables <= GRANTED.keys()
        withheld = set().union(*(WITHHELD[table] for table in tables))
        assert not withheld & set(re.findall(r"\w+", re.sub(r"'[^']*'|\"[^\"]*\"|\${[^}]*}", "", sql)))
        assert "*" not in sql.replace("count(*)", "")
        # Quoted by Grafana: what somebody types is a value and no SQL.
        assert set(re.findall(r"\$\{?notification_id[^\s)]*", sql)) <= {"${notification_id:sqlstring}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_links_lead_somewhere(name: str) -> None:
    given = DASHBOARDS[name]
    uids = {each["uid"] for each in DASHBOARDS.values()}
    assert {link["url"] for link in given["links"]} == {f"/d/{uid}" for uid in uids - {given["uid"]}}
    for url in re.findall(r'"url": "(/d/[^"]*)"', json.dumps(given["panels"])):
        found = re.fullmatch(r"/d/([\w-]+)\?var-(\w+)=\$\{__value\.raw\}", url)
        assert found
        [target] = [each for each in DASHBOARDS.values() if each["uid"] == found[1]]
        assert found[2] in {variable["name"] for variable in target["templating"]["list"]}
    names = {variable["name"] for variable in given["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panel["targets"] for panel in given["panels"]])))
    assert {each for each in used if not each.startswith("__")} == names


def test_a_dead_letter_leads_to_its_story() -> None:
    panel = PANELS["dead-letters: Standing, the newest 200"]
    overrides = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"]["overrides"]}
    [links] = [each["value"] for each in overrides["notification"] if each["id"] == "links"]
    assert [link["url"] for link in links] == ["/d/notifier-story?var-notification_id=${__value.raw}"]


def provisioned(kind: str) -> dict[str, Any]:
    """The one file of provisioning of a kind."""
    [file] = (GRAFANA / kind).iterdir()
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    assert document["apiVersion"] == 1
    return document


def test_data_sources_are_those_that_panels_name() -> None:
    sources = {each["uid"]: each for each in provisioned("datasources")["datasources"]}
    assert [{"type": each["type"], "uid": uid} for uid, each in sources.items()] == [PROMETHEUS, POSTGRES]
    assert not any(each["editable"] for each in sources.values())
    assert sources["postgres"]["user"] == ROLE
    assert sources["postgres"]["secureJsonData"] == {"password": "$NOTIFIER_READER_PASSWORD"}


def test_dashboards_are_not_edited_in_grafana() -> None:
    [provider] = provisioned("dashboards")["providers"]
    assert provider["allowUiUpdates"] is False
    assert provider["options"] == {"path": "/etc/grafana/dashboards"}
    assert not any(each["editable"] for each in DASHBOARDS.values())
