"""UUIDv7: fresh, derived, and as bounds."""

from datetime import UTC, date, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from notifier.vocabulary.ids import (
    bounds_of_millisecond,
    derived_id,
    first_id_after,
    first_id_of,
    millisecond_of,
    new_id,
    time_of,
)

MILLISECONDS = st.integers(0, 2**48 - 1)


@given(MILLISECONDS, st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_derived_id_is_a_uuid_of_version_7_and_of_its_millisecond(millisecond: int, parts: list[str]) -> None:
    made = derived_id(millisecond, *parts)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert millisecond_of(made) == millisecond
    assert made == derived_id(millisecond, *parts)


def test_other_parts_make_another_id() -> None:
    ids = {
        derived_id(1, "a", "b"),
        derived_id(1, "a", None, "b"),
        derived_id(1, "ab"),
        derived_id(1, "b", "a"),
        derived_id(2, "a", "b"),
    }
    assert len(ids) == 5


def test_a_derived_id_is_what_it_always_was() -> None:
    # Ids that are stored must be derived again after an upgrade: this value may never change.
    assert derived_id(1_763_700_000_000, UUID(int=7), "ada@example.com", "email", None) == UUID(
        "019aa4b6-4500-7a57-9305-2428ce2ae269"
    )


def test_fresh_ids_grow() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_an_id_tells_its_time() -> None:
    before = datetime.now(UTC)
    told = time_of(new_id())
    assert abs((told - before).total_seconds()) < 1
    assert told.microsecond % 1000 == 0


def test_the_first_id_of_a_day_bounds_its_ids() -> None:
    made = new_id()
    day = time_of(made).date()
    assert first_id_of(day) <= made
    assert first_id_of(date(1970, 1, 1)) == UUID(int=0)
    assert first_id_of(time_of(made)) <= made < first_id_of(datetime(9999, 1, 1, tzinfo=UTC))


@given(MILLISECONDS, st.text(alphabet="abc"))
def test_all_ids_of_a_millisecond_are_within_its_bounds(millisecond: int, part: str) -> None:
    first, last = bounds_of_millisecond(derived_id(millisecond, part))
    assert first <= derived_id(millisecond, part, "other") <= last
    assert (millisecond_of(first), millisecond_of(last)) == (millisecond, millisecond)
    assert last.int + 1 == (millisecond + 1) << 80


def test_the_first_id_after_a_moment_is_behind_all_of_its_millisecond() -> None:
    moment = datetime(2026, 11, 21, 9, 0, 0, 123_999, tzinfo=UTC)
    millisecond = millisecond_of(first_id_of(moment))
    assert derived_id(millisecond, "x") < first_id_after(moment) < derived_id(millisecond + 1, "x")
