"""BatchSender: by size and time, from many threads, through faults, at exit, in forked processes; nothing is lost."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from notifier_client import BatchSender, BufferFull, Client, Limits, NotifierError, RetryPolicy, Unauthenticated, Unsent
from tests.support.faulty_api import FaultyApi, answer, cut, hold, lose_answer, pass_on
from tests.support.paths import ROOT
from tests.support.running import Running, wait_for

HOUR = 3_600.0


@pytest.fixture
def faulty(system: Running) -> Iterator[FaultyApi]:
    """A server before the system's API."""
    with FaultyApi(system.url) as server:
        yield server


@pytest.fixture
def client(faulty: FaultyApi) -> Iterator[Client]:
    """A client that repeats nothing by itself: the sender does."""
    with Client(faulty.url, timeout=10, retries=RetryPolicy(retries=0)) as client:
        yield client


@pytest.fixture
def kind() -> str:
    """An event type of the test's own."""
    return f"batch.{uuid4().hex}"


def event(kind: str, number: int, **fields: Any) -> Any:
    return {"event_type": kind, "payload": {"n": number}, **fields}


def stored(system: Running, kind: str) -> Counter[int]:
    """How often each number was accepted."""
    found = system.client.events.list(event_type=kind, limit=200)
    return Counter(each["payload"]["n"] for each in found if each["payload"])


def sizes(faulty: FaultyApi) -> list[int]:
    """How many events each request had."""
    return [len(asked.json["events"]) for asked in faulty.asked]


def test_batches_go_out_by_size_and_the_rest_at_the_end(
    system: Running, faulty: FaultyApi, client: Client, kind: str
) -> None:
    with BatchSender(client, limits=Limits(max_events=10, max_seconds=HOUR)) as sender:
        for number in range(25):
            sender.add(event(kind, number))
        wait_for(lambda: len(sender) == 5)
        assert sizes(faulty) == [10, 10]
    assert sizes(faulty) == [10, 10, 5]
    assert stored(system, kind) == Counter(range(25))


def test_a_batch_goes_out_by_its_time_and_when_flushed(
    system: Running, faulty: FaultyApi, client: Client, kind: str
) -> None:
    with BatchSender(client, limits=Limits(max_seconds=0.05)) as sender:
        sender.add(event(kind, 0))
        wait_for(lambda: not len(sender))
    with BatchSender(client, limits=Limits(max_seconds=HOUR)) as sender:
        sender.add(event(kind, 1))
        assert sender.flush(20)
        assert sizes(faulty) == [1, 1]
        assert sender.flush(0)
    assert stored(system, kind) == Counter(range(2))


def test_threads_share_it_through_every_fault(system: Running, faulty: FaultyApi, client: Client, kind: str) -> None:
    for fault in (cut, lose_answer, answer(503), answer(429), answer(502, b"")):
        faulty.script.extend([fault, pass_on])  # several in a row take long pauses
    with BatchSender(client, limits=Limits(max_events=50, max_seconds=0.01, capacity=100)) as sender:

        def add(thread: int) -> None:
            for number in range(100):
                sender.add(event(kind, thread * 100 + number))

        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stored(system, kind) == Counter(range(400))
    assert not faulty.script


def test_a_full_buffer_holds_its_callers_back(faulty: FaultyApi, client: Client, kind: str) -> None:
    released = threading.Event()
    faulty.script.append(hold(released, pass_on))
    with BatchSender(client, limits=Limits(max_events=2, capacity=4, max_seconds=HOUR)) as sender:
        for number in range(4):
            sender.add(event(kind, number))
        with pytest.raises(BufferFull, match="4 events wait"):
            sender.add(event(kind, 4), timeout=0)
        waiting = threading.Thread(target=sender.add, args=(event(kind, 5),))
        waiting.start()
        released.set()
        waiting.join(20)
        assert not waiting.is_alive()
    assert sorted(each["payload"]["n"] for asked in faulty.asked for each in asked.json["events"]) == [0, 1, 2, 3, 5]


def test_a_batch_that_is_too_large_is_split(system: Running, faulty: FaultyApi, client: Client, kind: str) -> None:
    too_many = {"type": "/problems/validation-failed", "title": "x", "status": 422, "detail": "x"}
    faulty.script.extend([answer(413), answer(422, {**too_many, "errors": {"events": ["Send 1 to 2 events."]}})])
    with BatchSender(client, limits=Limits(max_events=8, max_seconds=HOUR)) as sender:
        for number in range(8):
            sender.add(event(kind, number))
    assert sizes(faulty) == [8, 4, 2, 2, 4]
    assert stored(system, kind) == Counter(range(8))


def test_what_is_refused_is_handed_to_the_callback_event_by_event(system: Running, client: Client, kind: str) -> None:
    refused: list[tuple[Any, Any]] = []

    def take(event: Any, item: Any) -> None:
        refused.append((event, item))

    with BatchSender(client, on_refused=take) as sender:
        sender.add(event(kind, 0))
        sender.add(event("a b", 1))
        sender.add(event(kind, 2, payload={"n": 2, "text": "x" * 300_000}))
        sender.add(event(kind, 3))
    assert stored(system, kind) == Counter([0, 3])
    assert [(each["payload"]["n"], item["status"]) for each, item in refused] == [(1, 422), (2, 413)]
    assert "event_type" in refused[0][1]["errors"]


def test_what_is_refused_comes_back_at_the_end_where_nobody_takes_it(client: Client, kind: str) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for options in ({}, {"on_refused": fail}):
        sender = BatchSender(client, **options)
        sender.add(event("a b", 1))
        sender.add(event(kind, 2))
        with pytest.raises(Unsent, match="1 refused") as caught:
            sender.close()
        [(found, item)] = caught.value.refused
        assert found["payload"] == {"n": 1}
        assert item["status"] == 422
        assert not caught.value.events
        sender.close()


def test_refused_events_that_nobody_takes_end_it_before_they_fill_the_memory(client: Client) -> None:
    sender = BatchSender(client, limits=Limits(max_events=1, capacity=3))

    def add_all() -> None:
        for number in range(100):
            sender.add(event("a b", number))

    with pytest.raises(NotifierError, match="3 events were refused, and nobody takes them"):
        add_all()
    with pytest.raises(Unsent) as caught:
        sender.close()
    assert len(caught.value.refused) >= 3


def test_a_key_that_is_refused_ends_it_and_all_comes_back(
    system: Running, faulty: FaultyApi, client: Client, kind: str
) -> None:
    faulty.otherwise = answer(401)
    sender = BatchSender(client, limits=Limits(max_events=2, max_seconds=HOUR, capacity=100))
    for number in range(3):
        sender.add(event(kind, number))
    with pytest.raises(Unauthenticated):
        wait_for(lambda: sender.add(event(kind, 3)))
    assert not sender.flush()
    with pytest.raises(Unsent) as caught:
        sender.close()
    assert isinstance(caught.value.cause, Unauthenticated)
    assert isinstance(caught.value.__cause__, Unauthenticated)
    assert [each["payload"]["n"] for each in caught.value.events][:3] == [0, 1, 2]
    faulty.otherwise = pass_on
    client.events.send_many(caught.value.events)
    assert set(stored(system, kind).values()) == {1}


def test_a_sender_that_is_closed_takes_nothing(client: Client, kind: str) -> None:
    sender = BatchSender(client)
    sender.close()
    with pytest.raises(RuntimeError, match="closed"):
        sender.add(event(kind, 1))


def test_what_cannot_be_sent_in_time_comes_back_with_its_keys(
    system: Running, faulty: FaultyApi, client: Client, kind: str
) -> None:
    faulty.otherwise = lose_answer
    sender = BatchSender(client)
    sender.add(event(kind, 1))
    with pytest.raises(Unsent) as caught:
        sender.close(timeout=0.5)
    faulty.otherwise = pass_on
    [item] = client.events.send_many(caught.value.events)["items"]
    assert item["status"] == "duplicate"
    assert stored(system, kind) == Counter([1])


def test_items_that_could_not_be_written_wait_for_another_batch(
    system: Running, faulty: FaultyApi, client: Client, kind: str
) -> None:
    items = [{"index": 0, "status": 503, "errors": {}}, {"index": 1, "id": str(uuid4()), "status": "accepted"}]
    faulty.script.append(answer(202, {"accepted": 1, "duplicates": 0, "rejected": 1, "items": items}))
    with BatchSender(client, limits=Limits(max_events=2)) as sender:
        sender.add(event(kind, 1))
        sender.add(event(kind, 2))
    assert stored(system, kind) == Counter([1])
    assert sizes(faulty) == [2, 1]


SCRIPT = """
import json, multiprocessing, os, sys
sys.path.insert(0, sys.argv[2])
from notifier_client import BatchSender, Client, Limits, RetryPolicy

client = Client(sys.argv[1], retries=0)
sender = BatchSender(client, limits=Limits(max_seconds=3600), close_timeout=float(sys.argv[4]))
def add(*numbers):
    for number in numbers:
        sender.add({"event_type": sys.argv[3], "payload": {"n": number}})
"""
ENDS: dict[str, tuple[str, set[int]]] = {
    "return": ("add(1, 2)", {1, 2}),
    "exit": ("add(1); sys.exit(3)", {1}),
    "error": ("add(1); 1 / 0", {1}),
    "fork": (
        "add(1)\nchild = os.fork()\nadd(2 if child else 3)\nif child: os.waitpid(child, 0)",
        {1, 2, 3},
    ),
    "multiprocessing": (
        "add(1)\nforking = multiprocessing.get_context('fork')\n"
        "child = forking.Process(target=add, args=(2,))\nchild.start(); child.join()",
        {1, 2},
    ),
}


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-c", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost_when_the_process_ends(system: Running, kind: str, end: str) -> None:
    code, numbers = ENDS[end]
    done = run(SCRIPT + code, system.url, ROOT / "clients/python/src", kind, 20)
    assert stored(system, kind) == Counter(numbers), done.stderr
    assert ("Traceback" in done.stderr) is (end == "error")


def test_what_cannot_be_sent_at_exit_is_told(faulty: FaultyApi, kind: str) -> None:
    faulty.otherwise = answer(503)
    done = run(SCRIPT + "add(1, 2)", faulty.url, ROOT / "clients/python/src", kind, 0.3)
    assert "Unsent: events: 2 unsent" in done.stderr
    telling = SCRIPT.replace("close_timeout", "on_unsent=lambda error: print(json.dumps(error.events)), close_timeout")
    done = run(telling + "add(1, 2)", faulty.url, ROOT / "clients/python/src", kind, 0.3)
    assert [each["payload"]["n"] for each in json.loads(done.stdout)] == [1, 2]
    assert not done.stderr


def test_an_error_within_its_block_is_not_hidden(system: Running, client: Client, kind: str) -> None:
    def use() -> None:
        with BatchSender(client) as sender:
            sender.add(event(kind, 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert stored(system, kind) == Counter([1])


def test_what_is_no_json_is_not_taken(client: Client, kind: str) -> None:
    with BatchSender(client) as sender, pytest.raises(ValueError, match="JSON"):
        sender.add(event(kind, 1, payload={"n": float("nan")}))
    assert not len(sender)
