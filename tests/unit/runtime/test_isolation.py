"""A row that breaks fails alone: the two boundaries, and what is told of it."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from notifier.runtime.isolation import Broken, attempt, in_parts, is_away, is_of_data, kind_of
from notifier.vocabulary.json_documents import to_json
from tasks import clock


class Said(Exception):
    """An error as psycopg2 raises it, with the server's code."""

    def __init__(self, pgcode: str | None) -> None:
        super().__init__("Failing row contains (ada@example.com)")
        self.pgcode = pgcode


@pytest.mark.parametrize(
    ("kind", "code", "away"),
    [
        (OperationalError, None, True),
        (OperationalError, "57P01", True),
        (OperationalError, "40P01", True),
        (OperationalError, "53300", True),
        (InterfaceError, None, True),
        (OperationalError, "54000", False),
        (ProgrammingError, "42P01", True),
        (ProgrammingError, "42703", True),
        (ProgrammingError, "42601", False),
        (DataError, "22P05", False),
        (IntegrityError, "23502", False),
        # Whatever class psycopg2 gives them: a failover, a full disk, a shutdown, a proxy that says no, a broken page.
        (InternalError, "25006", True),
        (OperationalError, "53100", True),
        (DatabaseError, "58030", True),
        (ProgrammingError, "08P01", True),
        (InternalError, "XX001", True),
        (OperationalError, "22P02", False),
    ],
)
def test_the_database_is_away_or_refuses_data(kind: Any, code: str | None, away: bool) -> None:
    error = kind("INSERT", {}, Said(code))
    assert is_away(error) is away
    assert not (away and is_of_data(error))
    assert not is_away(ValueError())
    assert "ada" not in kind_of(error)


@pytest.mark.parametrize(
    ("error", "of_data"),
    [
        (DataError("INSERT", {}, Said("22P05")), True),
        (IntegrityError("INSERT", {}, Said("23514")), True),
        (ProgrammingError("INSERT", {}, Said("42501")), False),
        (DatabaseError("INSERT", {}, Said("P0001")), False),
        (PoolTimeout(), False),
        (ValueError(), True),
    ],
)
def test_callers_are_blamed_for_their_data_alone(error: Exception, of_data: bool) -> None:
    assert is_of_data(error) is of_data


def test_in_parts_only_those_to_blame_are_given_up() -> None:
    done: list[int] = []
    calls: list[int] = []

    def work(part: Sequence[int]) -> None:
        calls.append(len(part))
        if {7, 300, 301} & set(part):
            raise ValueError(part)
        done.extend(part)

    given_up: list[int] = []
    in_parts(range(500), work, lambda row, _: given_up.append(row))
    assert given_up == [7, 300, 301]
    assert sorted(done) == sorted(set(range(500)) - {7, 300, 301})
    assert len(calls) < 60
    in_parts([], work, lambda row, _: given_up.append(row))


def test_while_the_database_is_away_nobody_is_to_blame() -> None:
    def work(_: Sequence[int]) -> None:
        raise OperationalError("UPDATE", {}, Said(None))

    with pytest.raises(OperationalError):
        in_parts([1, 2], work, lambda *_: pytest.fail("given up"))


def test_one_that_cannot_even_be_given_up_keeps_no_other_back() -> None:
    done: list[int] = []

    def work(part: Sequence[int]) -> None:
        if 1 in part:
            raise ValueError
        done.extend(part)

    def give_up(row: int, _: Exception) -> None:
        raise ZeroDivisionError

    in_parts([0, 1, 2], work, give_up)
    assert done == [0, 2]


def test_what_is_said_of_a_row_repeats_none_of_its_data() -> None:
    made = attempt("rules", "an id", lambda: {}["ada@example.com"])
    assert isinstance(made, Broken)
    assert str(made) == "rules: its data cannot be used (KeyError)"


def test_a_step_of_a_tick_that_breaks_ends_no_tick() -> None:
    def breaks() -> int:
        raise ValueError

    def away() -> int:
        raise OperationalError("SELECT", {}, Said(None))

    assert clock._step("holds", breaks) == 0
    assert clock._step("holds", lambda: 5) == 5
    with pytest.raises(OperationalError):
        clock._step("holds", away)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("plain ☃ \\u0000", "plain ☃ \\u0000"),
        ("a\0b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("\ud83d\ude00\0", "😀\ufffd"),
        ({"\0": ["\udfff", 1, None, 1.5]}, {"\ufffd": ["\ufffd", 1, None, 1.5]}),
        ((1, "x"), [1, "x"]),
    ],
)
def test_documents_hold_nothing_that_postgres_cannot_keep(value: object, kept: object) -> None:
    written = to_json([value])
    assert orjson.loads(written) == [kept]
