"""Mentions: a person is taken out of texts however they are written there, and nobody else is."""

import json

import pytest

from notifier.people.mentions import ERASED, Named
from tests.support.mentions import PERSON, SPELLINGS


@pytest.mark.parametrize("text", SPELLINGS)
def test_they_are_found_in_every_spelling(text: str) -> None:
    without = PERSON.taken_out_of(text)
    assert ERASED in without
    assert PERSON.taken_out_of(without) == without
    assert json.loads(PERSON.taken_out_of_json(json.dumps({"a": [text], text: 1}))) == {"a": [without], without: 1}


@pytest.mark.parametrize(
    "text",
    [
        "john.smith@corp.example",
        "john-smith@corp.example",
        "smith@corp.example.org",
        "smith@corp.example.pdf.example",
        "smith@corp.examples",
        "smith@sub.corp.example",
        "+49151123456789",
        "149151123456780",
        "xu_815-ada",
        "u_815-ada-2",
        "u_815-ada@corp.example",
        "you are guest number 42, one of many",
        "https://shop.example/",
        "https://hooks.example/a?user=10",
        "https://hooks.example/a/b",
        "slack://TOKEN/C10",
    ],
)
def test_nobody_else_is_taken_out(text: str) -> None:
    document = json.dumps({"a": text, text: 4.20})
    assert PERSON.taken_out_of(text) == text
    assert PERSON.taken_out_of_json(document) == document


def test_of_json_all_else_stays_as_it_was_written() -> None:
    before = (
        r'{ "b": 1.10, "a\u0041": "\"\u0073mith@corp.example\" said\n", "n": [4915112345678, 49151123456.5],  "z":"ä"}'
    )
    after = r'{ "b": 1.10, "a\u0041": "\"[erased]\" said\n", "n": ["[erased]", 49151123456.5],  "z":"ä"}'
    assert PERSON.taken_out_of_json(before) == after
    twice = '{"smith@corp.example":1,"SMITH@corp.example":2,"\\ud800":3}'
    assert PERSON.taken_out_of_json(twice) == '{"[erased]":1,"[erased] 2":2,"\\ud800":3}'


def test_a_word_or_a_number_is_an_id_only_where_it_says_so() -> None:
    before = (
        '{"user_id":"42","userId": 42,"user":{"uid":"guest"},"order":"42","n":42,"user_name":"guest","user_ids":42}'
    )
    assert json.loads(PERSON.taken_out_of_json(before)) == {
        **{"user_id": ERASED, "userId": ERASED, "user": {"uid": ERASED}, "order": "42", "n": 42},
        **{"user_name": "guest", "user_ids": 42},
    }


def test_keys_are_made_of_several_things() -> None:
    for key in ("welcome-smith@corp.example-1", "u_815-ada.2", "a:+4915112345678"):
        assert PERSON.are_in(key), key
    for key in ("order-42", "wordsmith@corp.example", "guest"):
        assert not PERSON.are_in(key), key


def test_names_of_files_are_made_of_several_things_too() -> None:
    assert PERSON.taken_out_of_name("bill-of-smith@corp.example.tar.gz") == "bill-of-[erased].tar.gz"


def test_recipients_are_theirs_in_every_spelling() -> None:
    assert PERSON.is_at("SMITH@corp.example", "email")
    assert PERSON.is_at("https://me:pw@hooks.example/a?user=1", "webhook")
    assert not PERSON.is_at("https://hooks.example/a?user=1", "webhook")
    assert not PERSON.is_at("TOKEN:aaaa-1111", "push")
    assert not PERSON.is_at("smith@corp.example", "sms")
    assert not PERSON.is_at(None, "email")


def test_it_is_written_down_and_read_again() -> None:
    again = Named.from_json(PERSON.to_json())
    assert again == PERSON


def test_of_nobody_nothing_is_taken_out() -> None:
    nobody = Named.of([], [])
    assert nobody.taken_out_of("a@b.example") == "a@b.example"
    assert not nobody.are_in("a@b.example")
