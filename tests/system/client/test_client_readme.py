"""The client's README: its examples run as they stand, in their order."""

import re
from typing import Any

import pytest

from tests.support.callers import Callers
from tests.support.paths import ROOT

README = (ROOT / "clients/python/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_examples_run(callers: Callers, capsys: pytest.CaptureFixture[str]) -> None:
    caller = callers.new(["send", "read", "users"])
    caller.ask("PUT", "/api/v1/users/ada", json={"email": "ada@example.com"})
    names: dict[str, Any] = {"__name__": "__main__"}  # Flask looks for its folder by it
    for block in BLOCKS:
        code = block.replace("https://notifier.example.com", caller.url).replace('"KEY"', repr(caller.key))
        exec(compile(code, "README.md", "exec"), names)  # the examples are ours
    shown = capsys.readouterr().out
    assert "scheduled" in shown
    assert "/problems/validation-failed {'event_type':" in shown
    assert "1200 0\n" in shown
    assert "keep for later" not in shown
    events = names["client"].events
    assert [each["idempotency_key"] for each in events.list(idempotency_key="order-42-shipped")] == ["order-42-shipped"]
    assert len(list(events.list(event_type="meter.read", limit=200))) == 2_201
    answer = names["app"].test_client().post("/hook", data=b"{}")
    assert answer.status_code == 401
