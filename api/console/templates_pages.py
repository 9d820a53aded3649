"""Templates: their variants and versions, a preview with sample data in each locale, a diff, and a form to save one."""

import difflib
import time
from typing import Any, Final

import orjson
from flask import Response, request

from api.auth import caller
from api.console.asking import Refused, answer_of, ask, path
from api.console.pages import Notice, act, back, page, show
from notifier.security.api_keys import Scope
from notifier.vocabulary.states import Channel

_PARTS: Final = ("subject", "text", "html", "from", "reply_to")
_CHANNELS: Final = [channel.value for channel in Channel if channel is not Channel.WEBHOOK]
_VERSIONS: Final = 50
#: Within so many seconds the preview of another locale is begun. One may take some seconds of its own.
_RENDERING_SECONDS: Final = 3.0
#: Lines of a part that are compared: the time that it takes grows faster than they do.
_MOST_LINES: Final = 1000
_SAMPLE: Final = '{\n  "name": "Ada"\n}'


@show("/templates")
def templates() -> Response:
    """List the current version of every template, channel and locale."""
    listed = ask("GET", path("templates"), query={"limit": 200, "cursor": request.args.get("cursor")})
    names: dict[str, list[Any]] = {}
    for each in listed["items"]:
        names.setdefault(each["name"], []).append(each)
    return page("templates.html", title="Templates", names=names, next_cursor=listed["next_cursor"])


def _chosen() -> dict[str, str]:
    """Return which variant is asked for: a channel and a locale."""
    return {name: request.values.get(name, "").strip() for name in ("channel", "locale")}


@show("/templates/<name:template_name>")
def template(template_name: str) -> Response:
    """Show a template: its variants, the versions of one, and a preview where sample data are given."""
    return _template(template_name)


@act("/templates/<name:template_name>/preview")
def preview(template_name: str) -> Response:
    """Preview a template in every locale of a channel. Nothing is saved or sent."""
    return _template(template_name, sample=request.form.get("data", ""))


def _template(
    name: str, sample: str | None = None, draft: dict[str, Any] | None = None, error: str | None = None
) -> Response:
    chosen = _chosen()
    record = ask("GET", path("templates", name), query=chosen)
    chosen = {"channel": record["channel"], "locale": record["locale"]}
    versions = ask("GET", path("templates", name, "versions"), query={**chosen, "limit": _VERSIONS})["items"]
    previews, sample_error = ([], None) if sample is None else _previews(name, record, sample)
    return page(
        "template.html",
        200 if error is None and sample_error is None else 422,
        title=f"Template {name}",
        name=name,
        record=record,
        draft=draft or record,
        versions=versions,
        differences=_differences(versions),
        changes=_changes(name),
        sample=sample or _SAMPLE,
        previews=previews,
        error=error or sample_error,
        channels=_CHANNELS,
    )


def _previews(name: str, record: dict[str, Any], sample: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rendered message of each locale of the record's channel, or why the sample is no JSON object."""
    try:
        data = orjson.loads(sample)
    except ValueError as error:
        return [], f"The sample is not JSON: {error}."
    if not isinstance(data, dict):
        return [], "The sample must be an object, such as {}."
    locales = [each["locale"] for each in record["variants"] if each["channel"] == record["channel"]]
    found: list[dict[str, Any]] = []
    until = time.monotonic() + _RENDERING_SECONDS
    for locale in locales:
        if time.monotonic() > until:
            found.append({"locale": locale, "error": "Not rendered: those before took too long."})
            continue
        asked = {"data": data, "channel": record["channel"], "locale": locale}
        answer = answer_of("POST", path("templates", name, "preview"), body=asked)
        refusal = Refused(answer.status, answer.document.get("detail", ""), answer.document.get("errors"))
        found.append({"locale": locale, **(answer.document if answer.status == 200 else {"error": refusal.words})})
    return found, None


def _differences(versions: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return what changed between the versions that are asked for, or else between the newest two, part by part."""
    by_number = {each["version"]: each for each in versions}
    numbers = sorted(by_number)
    if len(numbers) < 2:
        return []
    before = request.args.get("before", type=int) or numbers[-2]
    after = request.args.get("after", type=int) or numbers[-1]
    if before not in by_number or after not in by_number:
        return []
    found = []
    for part in _PARTS:
        old, new = (str(by_number[number].get(part) or "").splitlines() for number in (before, after))
        if lines := _changed_lines(old, new, f"version {before}", f"version {after}"):
            found.append((part, lines))
    return found


def _changed_lines(old: list[str], new: list[str], before: str, after: str) -> list[str]:
    if old != new and max(len(old), len(new)) > _MOST_LINES:
        return [f"It changed. It has more than {_MOST_LINES} lines, too many to compare here."]
    return list(difflib.unified_diff(old, new, before, after, lineterm="", n=3))


def _changes(name: str) -> list[Any]:
    """Return who saved it, by the audit log; none for those who may not read that."""
    # The API would refuse the others, and note each of their looks as a refusal.
    if not caller().may(Scope.ADMIN):
        return []
    return list(ask("GET", path("audit"), query={"target": f"template_name={name}", "limit": 20})["items"])


@act("/templates/<name:template_name>/save")
def save_template(template_name: str) -> Response:
    """Save a new version."""
    given = {name: request.form.get(name, "").replace("\r\n", "\n") for name in (*_PARTS, "channel", "locale")}
    body = {name: value or None for name, value in given.items()}
    try:
        saved = ask("PUT", path("templates", template_name), body=body)
    except Refused as refused:
        return _template(template_name, draft=body, error=refused.words)
    words = f"Version {saved['version']} is saved. Notifications that were made before keep theirs."
    where = {"template_name": template_name, "channel": saved["channel"], "locale": saved["locale"]}
    return back("template", Notice("done", words), **where)
