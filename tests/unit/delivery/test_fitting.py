"""How many messages are made at once where they have attachments."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from notifier.content.rendering import Envelope
from notifier.delivery.composer import Composition
from notifier.notifications.claims import Claimed

NOW = datetime(2026, 11, 21, tzinfo=UTC)
#: Four files of 1, 2, 3 and 4 bytes.
SIZES = {UUID(int=n): n for n in range(1, 5)}


def row(number: int) -> Claimed:
    nothing = dict.fromkeys(Claimed.__slots__)
    return Claimed(**cast(Any, nothing | {"id": UUID(int=number), "now": NOW}))


def composed(envelopes: dict[UUID, Envelope], sizes: dict[UUID, int]) -> Composition:
    nothing = dict.fromkeys(Composition.__slots__)
    return Composition(**cast(Any, nothing | {"_envelopes": envelopes, "_sizes": sizes}))


@pytest.mark.parametrize(("room", "fit"), [(0, 1), (1, 2), (2, 2), (3, 3), (5, 3), (6, 4), (10, 6), (100, 6)])
def test_as_many_rows_as_there_is_room_for_and_one_at_least(room: int, fit: int) -> None:
    # The first has 1 byte, the second nothing, then 2, 3 and 4; a file that is gone has no size.
    named = {1: (1,), 3: (2,), 4: (3,), 5: (4,), 6: (9,)}
    envelopes = {UUID(int=n): Envelope(attachments=tuple(UUID(int=each) for each in ids)) for n, ids in named.items()}
    composition = composed(envelopes, SIZES)
    rows = [row(n) for n in range(1, 7)]
    assert list(composition.fitting(rows, room)) == rows[:fit]
    assert composition.fitting(rows[4:], room)[0] is rows[4]


def test_without_attachments_all_fit() -> None:
    composition = composed({}, {})
    rows = [row(n) for n in range(1, 7)]
    assert composition.fitting(rows, -1) == rows
