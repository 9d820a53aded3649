"""Statistics of a whole system: its clock counts, and its API says who serves what."""

from typing import Any

from tests.support.running import Running, wait_for


def test_the_clock_counts_the_minutes_that_are_over(system: Running) -> None:
    def answer() -> dict[str, Any] | None:
        found: dict[str, Any] = system.get("/api/v1/stats?by=provider").json()
        return found if found["complete_until"] else None

    assert wait_for(answer, what="the clock to begin")["by"] == "provider"


def test_every_queue_of_a_system_has_its_workers(system: Running) -> None:
    state = system.get("/api/v1/state").json()
    assert all(each["workers"] for each in state["queues"])
    processes = {(each["name"].partition("@")[0], each["kind"]) for each in state["processes"]}
    assert processes >= {("fresh", "worker"), ("retry", "worker"), ("clock", "worker"), ("clock", "clock")}
    assert {"email", "sms", "push", "chat"} <= {each["channel"] for each in state["providers"] if each["in_use"]}
