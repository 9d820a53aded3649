"""Panels of Grafana's dashboards, in the JSON of Grafana 12.

A panel is a dict without its place; `dashboard` puts rows of them below each other. Descriptions say in plain words
what is normal. Units are Grafana's ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

Json = dict[str, Any]

#: The uids that deploy/grafana/provisioning gives its data sources.
PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "prometheus"}
POSTGRES: Final[Json] = {"type": "grafana-postgresql-datasource", "uid": "postgres"}

#: The version of the dashboards' JSON that Grafana 12.4 writes, the last of its kind.
SCHEMA: Final = 42
#: Columns of the grid.
WIDTH: Final = 24

#: From a value on → a colour; None is from the beginning on.
Steps = Sequence[tuple[float | None, str]]
GREEN: Final[Steps] = ((None, "green"),)
NONE_IS_GOOD: Final[Steps] = ((None, "green"), (1, "red"))

#: How words are coloured wherever they stand in a table.
_COLOURS: Final = {
    **dict.fromkeys(("delivered", "sent", "accepted", "processed", "closed"), "green"),
    **dict.fromkeys(("failed", "bounced", "complained", "rejected", "stands"), "red"),
    **dict.fromkeys(("retrying", "unsent", "ambiguous", "expired"), "orange"),
    **dict.fromkeys(("scheduled", "queued", "sending"), "blue"),
    **dict.fromkeys(("skipped", "cancelled", "requeued"), "purple"),
}


class Row(NamedTuple):
    """Panels beside each other."""

    height: int
    panels: Sequence[Json]
    #: In columns; none: as wide as each other.
    widths: Sequence[int] = ()


def _thresholds(steps: Steps) -> Json:
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}


def _panel(kind: str, title: str, description: str, unit: str, defaults: Json, options: Json) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
        "options": options,
    }


def _asking_prometheus(panel: Json, queries: Mapping[str, str], *, instant: bool) -> Json:
    """`queries`: legend → PromQL; `{{label}}` in a legend is a label's value."""
    panel["datasource"] = PROMETHEUS
    panel["targets"] = [
        {
            "refId": chr(ord("A") + number),
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "expr": " ".join(expression.split()),
            "legendFormat": legend,
            "format": "time_series",
            "instant": instant,
            "range": not instant,
        }
        for number, (legend, expression) in enumerate(queries.items())
    ]
    return panel


def _asking_postgres(panel: Json, sql: str) -> Json:
    panel["datasource"] = POSTGRES
    panel["targets"] = [
        {
            "refId": "A",
            "datasource": POSTGRES,
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": sql.strip(),
            "format": "table",
        }
    ]
    return panel


def series(
    title: str,
    description: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    stacked: bool = False,
    most: float | None = None,
    line: tuple[float, str] | None = None,
) -> Json:
    """Lines over time. `most`: the end of the axis. `line`: a value over which something is wrong, and its colour."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if line else "off"},
    }
    defaults: Json = {
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "thresholds": _thresholds(((None, "transparent"), line) if line else GREEN),
    }
    if most is not None:
        defaults["max"] = most
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": False},
    }
    return _asking_prometheus(_panel("timeseries", title, description, unit, defaults, options), queries, instant=False)


def number(title: str, description: str, unit: str, expression: str, steps: Steps = GREEN, *, legend: str = "") -> Json:
    """A number as it is now, coloured, over its own course; one for each series where there is a legend."""
    panel = _number(title, description, unit, steps, graph="none" if legend else "area", legend=legend)
    return _asking_prometheus(panel, {legend: expression}, instant=False)


def number_of_rows(title: str, description: str, unit: str, sql: str, steps: Steps = GREEN) -> Json:
    """A number that Postgres knows."""
    return _asking_postgres(_number(title, description, unit, steps, graph="none", legend=""), sql)


def _number(title: str, description: str, unit: str, steps: Steps, *, graph: str, legend: str) -> Json:
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": graph,
        "justifyMode": "auto",
        "textMode": "value_and_name" if legend else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": _thresholds(steps), "noValue": "no data"}
    return _panel("stat", title, description, unit, defaults, options)


def states(title: str, description: str, queries: Mapping[str, str], words: Mapping[int, tuple[str, str]]) -> Json:
    """A bar for each series, coloured by its state. `words`: value → its name and colour."""
    mapping = {str(value): {"text": text, "color": colour, "index": value} for value, (text, colour) in words.items()}
    defaults = {
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "mappings": [{"type": "value", "options": mapping}],
        "thresholds": _thresholds(GREEN),
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none", "hideZeros": False},
    }
    return _asking_prometheus(
        _panel("state-timeline", title, description, "none", defaults, options), queries, instant=False
    )


def table(
    title: str,
    description: str,
    sql: str,
    *,
    empty: str,
    links: Mapping[str, tuple[str, str]] | None = None,
    units: Mapping[str, str] | None = None,
    widths: Mapping[str, int] | None = None,
) -> Json:
    """Rows of Postgres. `empty`: what stands there where there are none. `links`: column → title and URL of its link,
    in which `${__value.raw}` is the value; `units` and `widths` (in pixels) are columns' own."""
    colours = {
        word: {"text": word, "color": colour, "index": place} for place, (word, colour) in enumerate(_COLOURS.items())
    }
    defaults = {
        "custom": {"align": "left", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(((None, "text"),)),
        "noValue": empty,
    }
    options = {"showHeader": True, "cellHeight": "sm", "frameIndex": 0, "enablePagination": False}
    panel = _panel("table", title, description, "none", defaults, options)
    properties: dict[str, list[Json]] = {
        column: [
            {"id": "mappings", "value": [{"type": "value", "options": colours}]},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
        for column in ("status", "outcome", "receipt", "letter")
    }
    for column, (words, url) in (links or {}).items():
        link = {"title": words, "url": url, "targetBlank": False}
        properties.setdefault(column, []).append({"id": "links", "value": [link]})
    for column, unit in (units or {}).items():
        properties.setdefault(column, []).append({"id": "unit", "value": unit})
    for column, width in (widths or {}).items():
        properties.setdefault(column, []).append({"id": "custom.width", "value": width})
    # The text for no rows would stand in each empty cell too.
    cells = {"matcher": {"id": "byRegexp", "options": ".*"}, "properties": [{"id": "noValue", "value": "–"}]}
    panel["fieldConfig"]["overrides"] = [cells] + [
        {"matcher": {"id": "byName", "options": column}, "properties": given}
        for column, given in properties.items()
        if column in sql
    ]
    return _asking_postgres(panel, sql)


def choice(name: str, label: str, query: str) -> Json:
    """A variable of which several values may be chosen, all at first. `query`: label_values(…)."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}", "qryType": 1},
        "refresh": 2,  # whenever the span of time changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def text_box(name: str, label: str) -> Json:
    """A variable that is typed."""
    empty = {"text": "", "value": ""}
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": "",
        "hide": 0,
        "skipUrlSync": False,
        "current": empty,
        "options": [{**empty, "selected": True}],
    }


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    *,
    others: Mapping[str, str],
    variables: Sequence[Json] = (),
    since: str = "now-1h",
    refresh: str = "15s",
) -> Json:
    """A whole dashboard. `others`: uid → title of those that it links to."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["notifier"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # the crosshair is in all panels at once
        "time": {"from": since, "to": "now"},
        "timezone": "browser",
        "refresh": refresh,
        "timepicker": {"refresh_intervals": ["10s", "15s", "30s", "1m", "5m"]},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "links": [_link(uid, title) for uid, title in others.items()],
        "templating": {"list": list(variables)},
        "annotations": {"list": []},
        "panels": _placed(rows),
    }


def _link(uid: str, title: str) -> Json:
    return {
        "type": "link",
        "title": title,
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        widths = row.widths or [WIDTH // len(row.panels)] * len(row.panels)
        if sum(widths) != WIDTH:
            raise ValueError(f"the row of {row.panels[0]['title']!r} is {sum(widths)} columns wide")
        x = 0
        for panel, width in zip(row.panels, widths, strict=True):
            place = {"x": x, "y": y, "w": width, "h": row.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **panel})
            x += width
        y += row.height
    return placed
