"""The resources of a running stack: CPU, memory and connections of each process, and Postgres' disk and log."""

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
import psycopg2
import redis
from sqlalchemy import make_url

from benchmarks.memory import pss_of
from benchmarks.processor_time import seconds_of
from benchmarks.stack import pids_of, settings_of

#: The processes of a stack, by the names that its folder has for them; there may be several workers `fresh`.
PROCESSES: Final = ("api", "fresh", "retry", "clock", "beat", "exporter", "postgres", "redis")
_INTERVAL: Final = 0.5
#: Seconds after which the last of Postgres' idle sessions has told what it counted.
_TOLD_AFTER: Final = 11.0
_MEGABYTE: Final = 1_000_000

_WAL: Final = "SELECT pg_current_wal_lsn() - '0/0'"
_WRITTEN: Final = """
    SELECT sum(coalesce(write_bytes, 0) + coalesce(extend_bytes, 0)), sum(fsyncs) FILTER (WHERE object = 'wal')
    FROM pg_stat_io
"""
# Partitions count for their parents; a table's indexes and its TOAST stand beside it.
_SIZES: Final = """
    SELECT coalesce(parent.relname, own.relname), sum(pg_relation_size(own.oid)), sum(pg_indexes_size(own.oid)),
        sum(coalesce(pg_total_relation_size(nullif(own.reltoastrelid, 0)), 0))
    FROM pg_class own LEFT JOIN pg_inherits ON inhrelid = own.oid LEFT JOIN pg_class parent ON parent.oid = inhparent
    WHERE own.relkind = 'r' AND own.relnamespace = 'public'::regnamespace
    GROUP BY 1
"""


def _process_of(child: str) -> str:
    """Return the process that a child of the stack is: `fresh` for `worker-fresh-2`."""
    name = child.removeprefix("worker-")
    return "redis" if name == "valkey" else name.partition("-")[0]


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _network_bytes() -> int:
    """Return the bytes that have crossed this machine's own interface, with their headers; each counts once."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


class Probe:
    """Looks at a running stack from outside."""

    def __init__(self, folder: Path) -> None:
        settings = settings_of(folder)
        self._folder = folder
        self._redis = redis.Redis.from_url(settings["REDIS_URL"])
        self._redis_port = make_url(settings["REDIS_URL"]).port
        self._postgres_port = make_url(settings["NOTIFIER_ADMIN_DATABASE_URL"]).port
        self._connection = psycopg2.connect(settings["NOTIFIER_ADMIN_DATABASE_URL"])
        self._connection.autocommit = True

    def close(self) -> None:
        """Leave its own connections."""
        self._connection.close()
        self._redis.close()

    def ask(self, statement: str) -> list[Any]:
        """Ask Postgres as a superuser."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def families(self) -> Iterator[tuple[str, list[psutil.Process]]]:
        """Yield each process of the stack, with its descendants."""
        for child, pid in pids_of(self._folder).items():
            with contextlib.suppress(psutil.NoSuchProcess):
                yield _process_of(child), _family(pid)

    def cpu(self) -> dict[str, float]:
        """Return the seconds of CPU that each process has used; of two workers `fresh` together."""
        used = dict.fromkeys(PROCESSES, 0.0)
        for name, family in self.families():
            used[name] += sum(seconds_of(each) for each in family)
        return used

    def memory(self) -> dict[str, dict[str, float]]:
        """Return MB of each process: what is its own (USS), its share (PSS), and all that it sees (RSS); the most."""
        found: dict[str, dict[str, float]] = {}
        for name, family in self.families():
            infos = [each.memory_full_info() for each in family]
            own, seen = sum(info.uss for info in infos), sum(info.rss for info in infos)
            sizes = {"uss": own / _MEGABYTE, "pss": pss_of(family[0]) or 0.0, "rss": seen / _MEGABYTE}
            found[name] = max(sizes, found.get(name, sizes), key=lambda each: each["pss"])
        return found

    def backend_mb(self) -> float:
        """Return the MB that one session of Postgres has for itself, on average."""
        backends = {
            row[0] for row in self.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        }
        own = [psutil.Process(pid).memory_full_info().uss for pid in backends]
        return sum(own) / len(own) / _MEGABYTE

    def sessions(self) -> dict[str, int]:
        """Return the sessions in Postgres of each process, as Postgres' own view has them; the most of one process."""
        ports = {row[0] for row in self.ask("SELECT client_port FROM pg_stat_activity WHERE client_port > 0")}
        found = dict.fromkeys(PROCESSES, 0)
        for name, family in self.families():
            if name not in {"postgres", "redis"}:
                held = [one.laddr.port for each in family for one in each.net_connections("tcp") if one.raddr]
                found[name] = max(found[name], sum(port in ports for port in held))
        return found

    def wal(self) -> int:
        """Return how many bytes Postgres has written to its log."""
        return int(self.ask(_WAL)[0][0])

    def transactions(self) -> int:
        """Return how many transactions that wrote something Postgres has numbered; this takes a number, too."""
        return int(self.ask("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")[0][0])

    def disk(self) -> dict[str, int]:
        """Return the bytes that Postgres has written to disk, with its log, and how often it flushed the log.

        Sessions tell once they have been idle for ten seconds.
        """
        time.sleep(_TOLD_AFTER)
        return dict(zip(("written", "syncs"), map(int, self.ask(_WRITTEN)[0]), strict=True))

    def sizes(self) -> dict[str, dict[str, int]]:
        """Return the bytes of each table, its indexes and its TOAST, over all days."""
        return {
            row[0]: dict(zip(("table", "indexes", "toast"), map(int, row[1:]), strict=True)) for row in self.ask(_SIZES)
        }

    def network(self) -> dict[str, int]:
        """Return the bytes that have crossed, and those of the two servers' live connections."""
        found = {"all": _network_bytes()}
        if shutil.which("ss") is None:
            return found
        command = ["ss", "-tinH", "state", "established"]
        for name, port in {"postgres": self._postgres_port, "redis": self._redis_port}.items():
            told = subprocess.run([*command, f"( dport = :{port} )"], capture_output=True, text=True, check=True).stdout
            found[name] = sum(map(int, re.findall(r"bytes_(?:sent|received):(\d+)", told)))
        return found

    def redis_memory(self) -> int:
        """Return the bytes that Redis has in use."""
        return int(self._redis.info("memory")["used_memory"])

    def queued_bytes(self, queue: str) -> int:
        """Return the bytes that a queue with all of its messages takes."""
        return int(self._redis.memory_usage(queue, samples=0) or 0)

    def queued(self, queue: str) -> int:
        """Return the messages in a queue."""
        return int(self._redis.llen(queue))


class MostSessions:
    """Counts the sessions of each process while something goes on; keeps the most of each."""

    def __init__(self, folder: Path) -> None:
        self._probe = Probe(folder)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most = dict.fromkeys(PROCESSES, 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._probe.close()

    def _look(self) -> None:
        while not self._ended.wait(_INTERVAL):
            for name, count in self._probe.sessions().items():
                self.most[name] = max(self.most[name], count)
