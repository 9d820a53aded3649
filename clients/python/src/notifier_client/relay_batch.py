"""One batch of a relay table's rows over HTTP: rows become lines, and the items of the answer their results."""

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from notifier_client.errors import NotifierError
from notifier_client.relay_table import Result, Row
from notifier_client.transport import Call, Transport

#: The largest event that is read at all, in bytes: the API takes no larger request, unless it is told to.
LARGEST: Final = 8 << 20

_PATH: Final = "/api/v1/events/batch"
#: Answers about one row after which it waits: they are not about the row.
_PASSING: Final = frozenset({401, 408, 425, 429})
#: Characters of an error that are kept with a row.
_MOST_WORDS: Final = 1000


class Blocked(NotifierError):
    """Nothing can be sent now, whatever the row: everything waits, and nothing was changed."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: The seconds to wait that Notifier asked for.
        self.retry_after = retry_after


def line_of(row: Row) -> bytes | Result:
    """Return a row's event as a line with its key, or why it cannot be sent.

    Numbers and the order of members stay as they were written: the text is kept, and the key is put in front.
    """
    if row.key is None:
        return refused(row.id, "It has no key.")
    if row.event is None:
        return refused(row.id, f"It has {row.size} bytes, more than {LARGEST}." if row.size else "It has no event.")
    try:
        parsed = json.loads(row.event)
    except (ValueError, RecursionError) as error:
        return refused(row.id, f"Its event is not JSON: {error}")
    if not isinstance(parsed, dict):
        return refused(row.id, "Its event is not a JSON object.")
    if "idempotency_key" in parsed:
        return refused(row.id, "Its event has an idempotency_key. Leave that out: the row's key is used.")
    # Line ends stand between tokens alone: within a text JSON escapes them.
    rest = row.event.strip().replace("\r", " ").replace("\n", " ")[1:]
    return f'{{"idempotency_key":{json.dumps(row.key)}{"," if parsed else ""}{rest}'.encode()


def post(transport: Transport, rows: Sequence[tuple[Row, bytes]]) -> list[Result]:
    """Post rows by their lines, and return the result of each.

    Raises ApiError and NoAnswer as the transport does, and Blocked for an answer that is none of Notifier's.
    """
    call = Call(
        method="POST",
        path=_PATH,
        body=b"\n".join(line for _, line in rows),
        headers={"Content-Type": "application/x-ndjson"},
        repeatable=False,  # the relay repeats it, from the table
    )
    answer = transport.request(call)
    try:
        items = answer.json()["items"]
        return [_result_of(row, index, item) for index, (row, item) in enumerate(_paired(rows, items))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Blocked(f"{call}: {answer.status_code}, but this is no answer of Notifier's") from None


def refused(id_: int, error: str) -> Result:
    """Return the result of a row that is refused for good."""
    return Result(id=id_, is_refused=True, error=words(error))


def words(error: str) -> str:
    """Return an error as it is kept with a row."""
    return error.replace("\x00", "")[:_MOST_WORDS]


def _paired(rows: Sequence[tuple[Row, bytes]], items: Sequence[Any]) -> list[tuple[Row, Any]]:
    return [(row, item) for (row, _), item in zip(rows, items, strict=True)]


def _result_of(row: Row, index: int, item: dict[str, Any]) -> Result:
    """Return what an item of the answer says about a row. Raises ValueError, KeyError, … where it says nothing."""
    if item["index"] != index:
        raise ValueError(index)
    status = item["status"]
    if status in {"accepted", "duplicate"}:
        return Result(id=row.id, event_id=str(UUID(item["id"])), is_duplicate=status == "duplicate")
    said = "; ".join(f"{field}: {' '.join(messages)}" for field, messages in item["errors"].items())
    error = f"{int(status)} {item['type']}: {said}"
    if 400 <= status < 500 and status not in _PASSING:
        return refused(row.id, error)
    return Result(id=row.id, error=words(error))
