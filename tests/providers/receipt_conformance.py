"""The conformance tests of every source of receipts: see notifier.providers.receipts.ReceiptSource."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from notifier.providers.receipts import Callback, Kind, Malformed, NotSigned, ReceiptSource


@dataclass(frozen=True)
class Case:
    """A source and callbacks for it."""

    source: ReceiptSource
    #: Signed; says of one message that it arrived or bounced.
    good: Callback
    #: The same, altered, signed by somebody else, or not at all.
    forged: Iterable[Callback]
    #: Signed, but not as documented.
    malformed: Iterable[Callback]
    #: A secret that must not be shown anywhere.
    secret: str


def hold(case: Case) -> None:
    """Hold a source to the protocol."""
    source = case.source
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", source.name)
    report = source.read(case.good)
    assert source.read(case.good) == report, "the same twice says the same twice"
    [receipt] = report.receipts
    assert receipt.provider == source.name
    assert receipt.kind in Kind
    assert receipt.happened_at.tzinfo is not None
    assert receipt.happened_at <= case.good.received_at
    assert (receipt.error is None) is (receipt.kind is Kind.DELIVERED)
    for forged in case.forged:
        with pytest.raises(NotSigned) as refused:
            source.read(forged)
        assert case.secret not in str(refused.value)
    for malformed in case.malformed:
        with pytest.raises(Malformed) as wrong:
            source.read(malformed)
        assert case.secret not in str(wrong.value)
    assert case.secret not in repr(source)
