"""The bare limit: what the job costs one process that does nothing else. Our own libraries, no framework, no features.

It keeps N events with their keys in groups of 500, reads them back, signs and POSTs each, and writes an attempt of each
and that it is done, in groups of 500. It reads DATABASE_URL, and prints events a second as JSON:
{"accepted": …, "delivered": …}.

    python -m benchmarks.peers.limit RECIPIENT [N]
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import psycopg2
import pycurl
from psycopg2.extras import execute_values

from notifier.security import webhook_signatures

_GROUP: Final = 500
_CONNECTIONS: Final = 64
_TABLES: Final = """
    CREATE TABLE events (id uuid PRIMARY KEY, type text, payload text, key text UNIQUE, status text);
    CREATE TABLE attempts (event_id uuid PRIMARY KEY, status_code int)
"""
_KEEP: Final = "INSERT INTO events VALUES %s ON CONFLICT (key) DO NOTHING"
_CLAIM: Final = """
    UPDATE events SET status = 'sending' WHERE id = ANY(CAST(%s AS uuid[])) AND status = 'queued'
    RETURNING CAST(id AS text), type, payload
"""
_RECORD: Final = "INSERT INTO attempts VALUES %s"
_DONE: Final = "UPDATE events SET status = 'delivered' WHERE id = ANY(CAST(%s AS uuid[]))"
_KEY: Final = webhook_signatures.key_of(webhook_signatures.new_secret())


def _handle(url: str) -> pycurl.Curl:
    handle = pycurl.Curl()
    for option, value in (
        (pycurl.URL, url),
        (pycurl.POST, 1),
        (pycurl.NOSIGNAL, 1),
        (pycurl.WRITEFUNCTION, lambda _: None),
    ):
        handle.setopt(option, value)
    return handle


def _begin(handle: pycurl.Curl, row: tuple[str, str, str]) -> None:
    event_id, event_type, payload = row
    body = f'{{"type":"{event_type}","data":{payload}}}'.encode()
    signed = webhook_signatures.headers([_KEY], event_id, int(time.time()), body)
    headers = [f"{name}: {value}" for name, value in signed.items()]
    handle.setopt(pycurl.POSTFIELDS, body)
    handle.setopt(pycurl.HTTPHEADER, ["content-type: application/json", *headers])


def _send(rows: list[tuple[str, str, str]], multi: pycurl.CurlMulti, handles: list[pycurl.Curl]) -> Iterator[Any]:
    """POST a group, and give each event's id with its status code."""
    waiting, flying, free = iter(rows), {}, list(handles)
    while True:
        while free and (row := next(waiting, None)):
            handle = free.pop()
            _begin(handle, row)
            flying[handle] = row[0]
            multi.add_handle(handle)
        if not flying:
            return
        multi.perform()
        _, done, failed = multi.info_read()
        for handle in [*done, *(each[0] for each in failed)]:
            multi.remove_handle(handle)
            free.append(handle)
            yield flying.pop(handle), handle.getinfo(pycurl.RESPONSE_CODE)
        multi.select(0.02)


def main() -> None:
    """Do the job, and print how many events a second were kept, and kept and delivered."""
    recipient, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    cursor = connection.cursor()
    cursor.execute(_TABLES)
    connection.commit()
    began, groups = time.monotonic(), []
    for first in range(0, count, _GROUP):
        numbers = range(first, min(count, first + _GROUP))
        rows = [(str(uuid.uuid4()), "USER_SIGNUP", json.dumps({"n": n}), uuid.uuid4().hex, "queued") for n in numbers]
        execute_values(cursor, _KEEP, rows, page_size=_GROUP)
        connection.commit()
        groups.append([row[0] for row in rows])
    kept = time.monotonic()
    multi, handles = pycurl.CurlMulti(), [_handle(recipient) for _ in range(_CONNECTIONS)]
    for ids in groups:
        cursor.execute(_CLAIM, (ids,))
        claimed = cursor.fetchall()
        connection.commit()
        answers = list(_send(claimed, multi, handles))
        execute_values(cursor, _RECORD, answers, page_size=_GROUP)
        cursor.execute(_DONE, ([event_id for event_id, _ in answers],))
        connection.commit()
    print(json.dumps({"accepted": count / (kept - began), "delivered": count / (time.monotonic() - began)}))


if __name__ == "__main__":
    main()
