"""Encrypt what is kept secret anew."""

import time
from uuid import UUID

import click
from sqlalchemy import func, select

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import progress, say
from notifier.models import Subscription
from notifier.notifications import resealing
from notifier.people import erasure
from notifier.security import signing_keys
from notifier.security.address_seals import KNOWN_AFTER
from notifier.webhooks import subscriptions


@click.command()
@on_a_stack
@audited()
def rekey() -> None:
    """Encrypt every secret with the first key of NOTIFIER_SECRET_KEY; after that the others can go.

    Run it once after an upgrade too, when no process of the release before runs any more: it encrypts what that kept as
    it was, such as the credentials in addresses.

    To change the key: put a new one in front of the old one, restart everything, run this, drop the old one. Running it
    again does no harm; where it stops, what was done before is kept.
    """
    wires = load_wiring()
    with wires.engine.connect() as connection:
        total = connection.scalar(select(func.count()).select_from(Subscription)) or 0
    done, after = 0, None
    with progress("Encrypting", total) as bar:
        while True:
            last: UUID | None
            count, last = subscriptions.rekey(wires.engine, wires.vault, after)
            if last is None:
                break
            done, after = done + count, last
            bar.advance(count)
    erasure.rekey(wires.engine, wires.vault)
    is_new = resealing.make_key(wires.engine, wires.vault)
    kept = signing_keys.reseal(wires.engine, wires.vault)
    if is_new:
        say(f"From now on addresses with credentials are sealed; in {KNOWN_AFTER:.0f} s every process knows.")
        time.sleep(KNOWN_AFTER)
    sealed = sum(resealing.seal_stored(wires.engine))
    say(f"Encrypted {kept} key{'s' * (kept != 1)} that sign links, seal addresses and chain the audit log.")
    say(f"Sealed {sealed} address{'es' * (sealed != 1)} that had credentials in them.")
    say(f"Encrypted the secrets of {done} subscription{'s' * (done != 1)} with the first key.")
