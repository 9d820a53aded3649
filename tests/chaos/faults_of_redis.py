"""Faults of Redis: killed, emptied, hanging, full, behind a wire that fails."""

import shutil
import signal
import time

import redis

from tests.chaos.faults import Spell, fault
from tests.chaos.system import signal_group


@fault("redis-restart", seconds=3)
def restart(spell: Spell) -> None:
    """Redis killed, away for some seconds, and back with what it had."""
    spell.system.valkey.kill()
    spell.wait()
    spell.system.valkey.start()


@fault("redis-empty", seconds=3, short=3)
def restart_empty(spell: Spell) -> None:
    """Redis killed, and back with nothing."""
    valkey = spell.system.valkey
    valkey.kill()
    spell.wait()
    shutil.rmtree(valkey.data)
    valkey.start()


@fault("redis-flushall", seconds=20, short=6)
def flush(spell: Spell) -> None:
    """FLUSHALL every two seconds."""
    with redis.Redis.from_url(spell.system.valkey.url) as client:
        for _ in spell.every(2):
            client.flushall()


@fault("redis-hangs", seconds=20)
def hang(spell: Spell) -> None:
    """SIGSTOP of Redis."""
    pid = spell.system.valkey.pid or 0
    signal_group(pid, signal.SIGSTOP)
    spell.wait()
    signal_group(pid, signal.SIGCONT)


@fault("redis-full", seconds=15)
def full(spell: Spell) -> None:
    """Redis refuses every write, for want of memory."""
    with redis.Redis.from_url(spell.system.valkey.url) as client:
        client.config_set("maxmemory", "1")
        spell.wait()
        client.config_set("maxmemory", "0")


@fault("redis-silent", seconds=20)
def silent(spell: Spell) -> None:
    """All connections to Redis go quiet for good, without an end; new ones work."""
    spell.system.to_redis.silence()
    spell.wait()


@fault("redis-wire", seconds=15)
def wire(spell: Spell) -> None:
    """Messages to and from Redis are late, and one in fifty is cut in its middle."""
    proxy = spell.system.to_redis
    proxy.delay, proxy.cut_share = 0.02, 0.02
    spell.wait()
    proxy.behave()


@fault("redis-refuses", seconds=8)
def refuse(spell: Spell) -> None:
    """Connections to Redis are cut, and new ones refused."""
    proxy = spell.system.to_redis
    proxy.refusing = True
    until = time.monotonic() + spell.seconds
    while time.monotonic() < until:
        proxy.drop()
        spell.wait(0.5)
    proxy.behave()
