"""Checks of the service: settings, processes, providers, keys, the public URL, the disk."""

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Engine

from config.providers import make_providers
from config.queues import WORKERS
from config.settings import Settings, SettingsError, all_faults
from deploy.commands.doctor_checks import Check, Finding, ill, note, well
from notifier.observability import heartbeats
from notifier.providers.breakers import BreakerStatus, breaker_statuses
from notifier.providers.failover import Choice
from notifier.providers.vendors.outbox import Outbox
from notifier.providers.vendors.simulator import Simulator
from notifier.providers.vendors.smtp import Smtp
from notifier.security import api_keys as keys
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

#: The channels that have providers of their own; webhooks have receivers.
CHANNELS: Final = [channel for channel in Channel if channel is not Channel.WEBHOOK]
#: Bytes that must be free on a disk.
_LEAST_FREE: Final = 2**30
_LOGIN: Final = "see its host, port, tls and credentials, and whether this machine may reach it"
#: Keys that end so soon are told of.
_SOON: Final = timedelta(days=14)


def settings_parse() -> Iterator[Finding]:
    """Check that all settings parse."""
    faults = all_faults()
    for fault in faults:
        yield ill("settings", fault, "see docs/settings.md")
    if not faults:
        yield well("settings", "every one parses")


def workers(engine: Engine) -> Iterator[Finding]:
    """Check that every queue has a worker, and that the clock ticks."""
    alive = [heartbeat for heartbeat, _ in heartbeats.alive(engine)]
    serving = {queue for each in alive if each.kind == heartbeats.WORKER for queue in each.queues}
    for role, queues in WORKERS.items():
        missing = [queue for queue in queues if queue not in serving]
        if missing:
            says = f"nobody serves {', '.join(missing) if len(missing) < len(queues) else 'its queues'}"
            yield ill(f"worker {role}", says, f"start 'manage.py worker {role}', and see its log")
        else:
            names = sorted(each.name for each in alive if set(each.queues) & set(queues))
            yield well(f"worker {role}", f"{', '.join(names)}: {len(queues)} of {len(queues)} queues")
    if any(each.kind == heartbeats.CLOCK for each in alive):
        yield well("clock", "it ticks")
    else:
        says = f"no tick within {heartbeats.GONE_AFTER:g} s: nothing is retried, reminded or handed over"
        yield ill("clock", says, "start 'manage.py beat' and 'manage.py worker clock', and see their logs")


def provider_checks(settings: Settings, engine: Engine, channel: Channel) -> Iterator[Check]:
    """Return one check for each provider of a channel, or one that says why there is none."""
    name = channel.value
    if settings.sandbox or not settings.of(channel).providers:
        yield Check(name, lambda: iter([_none(settings, channel)]), _LOGIN)
        return
    try:
        made = make_providers(settings, channel, engine)
    except SettingsError as error:
        wrong = ill(name, str(error), "see docs/providers.md; no process starts like that")
        yield Check(name, lambda: iter([wrong]), _LOGIN)
        return
    with closing(made):
        for choice in made.choices:
            yield Check(f"{name} {choice.name}", partial(_login, channel, choice), _LOGIN)


def _none(settings: Settings, channel: Channel) -> Finding:
    if settings.sandbox:
        return note(channel.value, "NOTIFIER_SANDBOX is on: nothing is sent")
    setting = f"NOTIFIER_{channel.upper()}"
    return note(channel.value, f"no provider: {setting} is not set, and the API answers 422")


def _login(channel: Channel, choice: Choice) -> Iterator[Finding]:
    name = f"{channel} {choice.name}"
    real = choice.provider.behind if isinstance(choice.provider, Simulator) else choice.provider
    if isinstance(real, Smtp):
        trouble = real.check()
        yield ill(name, trouble, _LOGIN) if trouble else well(name, "it lets us in")
    elif isinstance(real, Outbox):
        yield note(name, "the local outbox: nothing leaves this system")
    else:
        says = f"credentials cannot be tried without sending: 'manage.py providers test {channel} RECIPIENT' does"
        yield note(name, says)


def any_channel(settings: Settings) -> Iterator[Finding]:
    """Check that any channel can send, and whether webhooks can be addressed directly."""
    if not any(settings.of(channel).providers for channel in Channel) and not settings.secret_key:
        yield ill("channels", "none can be used", "set a provider, such as NOTIFIER_EMAIL=smtp://…: docs/providers.md")
    if settings.webhook_secret and settings.shared_webhook_secrets:
        says = "one secret signs for all hosts besides: who was given it can forge; docs/receiving-webhooks.md, Moving"
        yield note("webhook secret", says)
    elif settings.webhook_secret:
        yield well("webhook secret", "set; each host has its own")
    else:
        yield note("webhook secret", "NOTIFIER_WEBHOOK_SECRET is not set: no webhooks but those of subscriptions")


def breakers(engine: Engine) -> Iterator[Finding]:
    """Check whether a provider's breaker is open."""
    shut = [standing for standing in breaker_statuses(engine) if standing.open_until is not None]
    for standing in shut:
        says, todo = _since(standing), f"see 'manage.py providers status {standing.channel}'"
        yield ill(f"breaker {standing.channel} {standing.name}", says, todo)
    if not shut:
        yield well("breakers", "all are closed")


def _since(standing: BreakerStatus) -> str:
    since = f" since {rfc3339(standing.failing_since.replace(microsecond=0))}" if standing.failing_since else ""
    return f"open: it fails{since}: {standing.error}"


def public_url(settings: Settings) -> Iterator[Finding]:
    """Check that links in messages are reachable and safe."""
    url, name = settings.public_url, "public url"
    todo = "set NOTIFIER_PUBLIC_URL to where others reach the API, https://…: links in messages and receipts lead there"
    if settings.auth == "off":
        yield note(name, f"{url}; not judged, since no keys are required: that is for trying things out")
    elif _is_local(urlsplit(url).hostname or ""):
        yield ill(name, f"{url} is this machine, for whoever clicks on it", todo)
    elif not url.startswith("https:"):
        yield ill(name, f"{url} is not https", todo)
    else:
        yield well(name, url)


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in {"", "localhost"} or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def api_keys(settings: Settings, engine: Engine) -> Iterator[Finding]:
    """Check that API keys exist, if they are required."""
    if settings.auth == "off":
        yield note("api keys", "NOTIFIER_AUTH is off: whoever reaches the API may do everything")
        return
    now = datetime.now(UTC)
    usable = [
        key for key in keys.listed(engine) if not key.revoked_at and not (key.expires_at and key.expires_at <= now)
    ]
    if not usable:
        yield ill("api keys", "there is none in use", "run 'manage.py api-keys create --name NAME --scope send,read'")
        return
    yield well("api keys", f"{len(usable)} in use")
    for key in usable:
        if key.expires_at and key.expires_at < now + _SOON:
            until = rfc3339(key.expires_at.replace(microsecond=0))
            yield note("api keys", f"{key.name} ends {until}: 'manage.py api-keys rotate {key.name} --expires …'")


def disk() -> Iterator[Finding]:
    """Check the free space of this disk. The disk of Postgres cannot be seen from here."""
    folders = {Path(os.environ.get("NOTIFIER_DATA_DIR") or ".notifier"), Path(tempfile.gettempdir())}
    there = {(folder if folder.is_dir() else Path.cwd()).resolve() for folder in folders}
    for folder in sorted({folder.stat().st_dev: folder for folder in sorted(there)}.values()):
        free = shutil.disk_usage(folder).free
        says = f"{free / 2**30:.1f} GB free at {folder}"
        yield (well("disk", says) if free >= _LEAST_FREE else ill("disk", says, "make room ('du -x')"))
