"""Rows of a relay table as lines of a request, and what the items of the answer say about them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_client.relay_batch import line_of
from notifier_client.relay_table import RelayTable, Result, Row

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text().filter(lambda name: name != "idempotency_key"), VALUES)


@given(OBJECTS, st.text(min_size=1), st.sampled_from([None, 1, "\t"]), st.sampled_from(["", " ", "\r\n", "\n\t"]))
def test_a_line_is_the_event_as_it_was_written_with_its_key(
    event: dict[str, Any], key: str, indent: int | str | None, space: str
) -> None:
    text = space + json.dumps(event, indent=indent) + space
    line = line_of(Row(1, key, text, len(text)))
    assert isinstance(line, bytes)
    assert b"\n" not in line
    assert b"\r" not in line
    pairs = json.loads(line, object_pairs_hook=list)
    assert pairs[0] == ["idempotency_key", key] or pairs[0] == ("idempotency_key", key)
    assert pairs[1:] == json.loads(text, object_pairs_hook=list)


@given(VALUES.filter(lambda value: not isinstance(value, dict)) | st.just({"idempotency_key": None}))
def test_what_is_no_event_is_refused(value: Any) -> None:
    refused = line_of(Row(7, "key", json.dumps(value), 1))
    assert isinstance(refused, Result)
    assert (refused.id, refused.is_refused, refused.event_id) == (7, True, None)
    assert refused.error


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("notifier_relay", '"notifier_relay"'), ("Shop.Events2", '"Shop"."Events2"'), ("_a._b", '"_a"."_b"')],
)
def test_names_of_tables_are_quoted(name: str, quoted: str) -> None:
    assert RelayTable(name).name == quoted


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a.b.c", "a b", 'a"', "a;", "1a", "ä", "a\n", "a-b", "t" * 56])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no table"):
        RelayTable(name)
