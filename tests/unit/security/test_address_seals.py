"""Seals of addresses: one form of one address, opened with the same key alone."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from notifier.security.address_seals import NO_SEALS, AddressSeals, seals_of, with_seals
from notifier.security.redaction import masked_json, masked_text, opened_json
from notifier.security.secret_box import CannotDecrypt, Vault, new_key
from notifier.vocabulary.addresses import endpoint_of, folded, normalised
from notifier.vocabulary.masking import is_masked, masked, seal_of
from notifier.vocabulary.states import Channel

HOOK = "https://ada:hunter2@example.com/hook?token=s3cret"
CHAT = "slack://T0KENA/T0KENB/T0KENC"


def database(vault: Vault) -> Engine:
    """An engine on a database of one table, which may hold the key."""
    engine = with_seals(create_engine("sqlite://"), vault)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE signing_keys (purpose text PRIMARY KEY, secret blob, created_at text)"))
    return engine


def give_key(engine: Engine, secret: bytes = b"k" * 32) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM signing_keys"))
        values = {"secret": secret}
        connection.execute(text("INSERT INTO signing_keys VALUES ('addresses', :secret, 'now')"), values)


@pytest.fixture
def vault() -> Vault:
    return Vault([new_key()])


@pytest.fixture
def engine(vault: Vault) -> Iterator[Engine]:
    engine = database(vault)
    give_key(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(("channel", "address"), [(Channel.WEBHOOK, HOOK), (Channel.CHAT, CHAT), (None, HOOK)])
def test_an_address_has_one_kept_form_and_is_opened_from_it(
    engine: Engine, vault: Vault, channel: Channel | None, address: str
) -> None:
    seals = seals_of(engine)
    kept = seals.kept(channel, address)
    assert kept == seals.kept(channel, address) == seals.kept(channel, kept)
    assert AddressSeals(engine, vault).kept(channel, address) == kept  # another process
    assert seals.opened(kept) == seals.opened_or_kept(kept) == address
    assert seals.forms(channel, address) == seals.forms(channel, kept) == (kept, address)
    assert masked(kept) == masked(address) == kept.partition(" ")[0]
    for secret in ("hunter2", "s3cret", "T0KENA", "T0KENB", "T0KENC", "ada:"):
        assert secret not in kept
    assert folded(Channel.WEBHOOK, kept) == folded(Channel.CHAT, kept) == kept
    assert endpoint_of(kept) == endpoint_of(kept)
    assert seals.kept(channel, address + "x") != kept


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        (Channel.EMAIL, "ada@example.com"),
        (Channel.SMS, "+4915112345678"),
        (Channel.PUSH, "ExponentPushToken[x]"),
        (Channel.WEBHOOK, "https://example.com/hook?page=2"),
        (None, "ada@example.com"),
        (None, '{"endpoint":"https://push.example.com/x","keys":{}}'),
    ],
)
def test_other_addresses_are_kept_as_they_are(engine: Engine, channel: Channel | None, address: str) -> None:
    seals = seals_of(engine)
    assert seals.kept(channel, address) == seals.opened(address) == address
    assert seals.forms(channel, address) == (address,)


def test_no_caller_can_name_a_kept_form(engine: Engine) -> None:
    for channel, address in ((Channel.WEBHOOK, HOOK), (Channel.CHAT, CHAT)):
        with pytest.raises(ValueError, match=r"for the credentials|Not the address"):
            normalised(channel, seals_of(engine).kept(channel, address))


def test_the_longest_address_fits_into_an_index(engine: Engine) -> None:
    for begin in ("https://u:p@example.com/", "https://example.com/" + "p" * 900 + "?token="):
        longest = begin + "x" * (2048 - len(begin))
        kept = seals_of(engine).kept(Channel.WEBHOOK, normalised(Channel.WEBHOOK, longest))
        assert len(kept.encode()) <= 2640
        assert seals_of(engine).opened(kept) == longest


def test_without_a_key_nothing_is_sealed_and_one_that_comes_is_seen(vault: Vault) -> None:
    engine = database(vault)
    seals, other = seals_of(engine), AddressSeals(engine, vault)
    assert seals.kept(Channel.CHAT, CHAT) == CHAT
    assert seals.forms(Channel.CHAT, CHAT) == (CHAT,)
    give_key(engine)
    assert seals.kept(Channel.CHAT, CHAT) == CHAT  # it does not ask each time
    sealed = other.kept(Channel.CHAT, CHAT)
    assert seal_of(sealed) is not None
    assert seals.opened(sealed) == CHAT  # another process has the key: so there is one
    assert seals.kept(Channel.CHAT, CHAT) == sealed
    assert NO_SEALS.kept(Channel.CHAT, CHAT) == CHAT


def test_the_key_is_encrypted_by_the_first_who_reads_it(engine: Engine, vault: Vault) -> None:
    sealed = seals_of(engine).kept(Channel.CHAT, CHAT)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT secret FROM signing_keys")).scalar_one() != b"k" * 32
    assert AddressSeals(engine, vault).opened(sealed) == CHAT
    for wrong in (AddressSeals(engine, Vault([new_key()])), AddressSeals(engine, Vault(()))):
        assert wrong.opened_or_kept(sealed) == sealed
        assert wrong.forms(Channel.CHAT, sealed) == (sealed,)
        wrong.get_ready([sealed, None])  # says nothing: the row will


def test_a_seal_that_is_not_ours_cannot_be_opened(engine: Engine) -> None:
    seals = seals_of(engine)
    sealed = seals.kept(Channel.CHAT, CHAT)
    give_key(engine, b"o" * 32)
    other = AddressSeals(engine, Vault(()))
    for wrong in (sealed[:-1], sealed[:-5] + "AAAAA", "slack://*** sealed:€"):
        with pytest.raises(CannotDecrypt):
            seals.opened(wrong)
    with pytest.raises(CannotDecrypt):
        other.opened(sealed)
    with pytest.raises(CannotDecrypt):
        NO_SEALS.opened(sealed)


def test_texts_and_documents_show_it_masked_or_opened(engine: Engine) -> None:
    seals = seals_of(engine)
    kept = seals.kept(Channel.WEBHOOK, HOOK)
    document = f'{{"recipient":"{kept}","note":"to {kept}, twice","n":1.10}}'
    shown = "https://***@example.com/hook?token=***"
    assert masked_text(f"webhook to {kept} failed") == f"webhook to {shown} failed"
    assert masked_json(document) == f'{{"recipient":"{shown}","note":"to {shown}, twice","n":1.10}}'.replace(
        ", t", " t"
    )
    assert opened_json(document, seals.opened_or_kept).startswith(f'{{"recipient":"{HOOK}","note":"to ')
    assert '"n":1.10' in opened_json(document, seals.opened_or_kept)
    assert not is_masked(HOOK)
