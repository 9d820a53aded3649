"""Failures of workers, beats and messages: nothing is lost, and the receiver judges."""

import time

from sqlalchemy import text

from tests.support.breaking import all_delivered, hang, kill, wake
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


def test_a_killed_workers_rows_are_taken_over(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    release = http.hold("/killed")
    events = [system.event(recipient=http.url("/killed"), channel="webhook") for _ in range(3)]
    wait_for(lambda: len(http.received("/killed")) == 3)
    kill(system.fresh)
    release()
    system.fresh.launch()
    for event_id in events:
        notification = system.finished(event_id, 40)
        assert notification["status"] == "delivered"
        lost, sent = notification["attempt_log"]
        assert (lost["number"], lost["outcome"], lost["provider"]) == (1, "ambiguous", None)
        assert lost["error"].startswith("worker lost")
        assert (sent["number"], sent["outcome"]) == (2, "accepted")
        assert notification["attempts"] == 2
    # Twice, and with the same id: the worker died in the middle of sending, so nobody could know.
    assert sorted(http.times("/killed").values()) == [2, 2, 2]


def test_a_worker_that_comes_back_late_sends_nothing_more(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    release = http.hold("/stopped")
    event_id = system.event(recipient=http.url("/stopped"), channel="webhook")
    wait_for(lambda: http.received("/stopped"))
    hang(system.fresh)
    other = system.add_worker("fresh", "fresh-2")
    system.start(only=[other])
    wait_for(lambda: len(http.received("/stopped")) == 2, 40)
    release()
    notification = system.finished(event_id)
    wake(system.fresh)
    time_of_claims = system.sql("SELECT claims, attempts FROM notifications WHERE id = :id", id=notification["id"])[0]
    assert tuple(time_of_claims) == (2, 2)
    # The late worker fills in what it knows of its own attempt, and changes nothing else.
    wait_for(lambda: system.notification(notification["id"])["attempt_log"][0]["provider"] == "webhook", 20)
    later = system.notification(notification["id"])
    assert later["status"] == "delivered"
    assert [a["number"] for a in later["attempt_log"]] == [1, 2]
    assert len(http.received("/stopped")) == 2


def test_a_row_that_kills_its_workers_is_dead_in_the_end(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    release = http.hold("/killer")
    event_id = system.event(recipient=http.url("/killer"), channel="webhook")
    for time_killed in range(1, 6):
        wait_for(lambda n=time_killed: len(http.received("/killer")) == n, 40)
        kill(system.fresh)
        # Past its lease, without the wait.
        system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
        system.fresh.launch()
    release()
    notification = system.finished(event_id, 40)
    assert (notification["status"], notification["reason"], notification["attempts"]) == ("failed", "worker_lost", 5)
    assert system.dead_letter(event_id)["reason"] == "worker_lost"


def test_any_number_of_beats_hand_over_once(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    system.start(
        only=[system.add("beat-2", "beat"), system.add("beat-3", "beat"), system.add_worker("clock", "clock-2")]
    )
    system.sql("SELECT 1")
    answer = system.post(
        "/api/v1/events/batch",
        {
            "events": [
                {
                    "event_type": "x",
                    "recipient": http.url("/beats"),
                    "channel": "webhook",
                    "send_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3)),
                }
                for _ in range(300)
            ]
        },
    )
    assert answer.json()["accepted"] == 300
    all_delivered(system, http, "/beats", 300)
    assert set(http.times("/beats").values()) == {1}


def test_an_event_that_breaks_fan_out_dies_alone(breakable: Running) -> None:
    system = breakable
    # A trigger stands in for whatever a row may break: the batch fails, the row alone is to blame.
    system.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'cannot be fanned out'; END $$"
    )
    system.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON notifications FOR EACH ROW WHEN (NEW.user_id = 'poison')"
        " EXECUTE FUNCTION refuse()"
    )
    answer = system.post(
        "/api/v1/events/batch",
        {"events": [{"event_type": "x", "user_id": user} for user in ("fine", "poison", "fine")]},
    )
    fine, poison, other = (item["id"] for item in answer.json()["items"])
    wait_for(lambda: all(system.get(f"/api/v1/events/{e}").json()["status"] == "processed" for e in (fine, other)))

    def hurry() -> bool:
        system.sql("UPDATE events SET due_at = now() WHERE status = 'accepted'")
        return bool(system.get(f"/api/v1/events/{poison}").json()["status"] == "failed")

    wait_for(hurry, 40)
    letter = system.dead_letter(poison)
    assert (letter["notification_id"], letter["reason"]) == (None, "fan_out_failed")
    assert letter["error"]
    system.sql("DROP TRIGGER refuse ON notifications")
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    wait_for(lambda: system.get(f"/api/v1/events/{poison}").json()["status"] == "processed")
    assert len(system.notifications(poison)) == 1


def test_an_absence_of_workers_is_held_against_no_event(breakable: Running) -> None:
    system = breakable
    hang(system.fresh)
    event_id = system.event(user_id="u_1", channel="email")

    def handed_over() -> bool:
        return bool(system.sql("SELECT due_at > now() FROM events WHERE id = :id", id=event_id)[0][0])

    for _ in range(6):
        system.sql("UPDATE events SET due_at = now() WHERE id = :id", id=event_id)
        wait_for(handed_over)
    assert tuple(system.sql("SELECT status, handovers FROM events WHERE id = :id", id=event_id)[0]) == ("accepted", 0)
    kill(system.fresh)
    with system.engine.begin() as connection:
        connection.execute(text("LOCK TABLE routes IN ACCESS EXCLUSIVE MODE"))
        connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        system.fresh.launch()
        # Begun, it waits for the lock, and its worker is killed there.
        wait_for(lambda: system.sql("SELECT handovers FROM events WHERE id = :id", id=event_id)[0][0] == 1, 30)
        kill(system.fresh)
    system.fresh.launch()
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed", 30)
    assert len(system.notifications(event_id)) == 1


def test_fan_out_twice_makes_one_notification(breakable: Running) -> None:
    system = breakable
    event_id = system.event(user_id="u_1", channel="email")
    wait_for(lambda: system.notifications(event_id))
    system.sql("UPDATE events SET status = 'accepted', due_at = now() WHERE id = :id", id=event_id)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    assert len(system.notifications(event_id)) == 1


def test_a_warm_shutdown_sends_nothing_twice(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    for round_ in range(3):
        for _ in range(40):
            system.event(recipient=http.url("/warm"), channel="webhook")
        began = time.monotonic()
        system.fresh.stop()
        assert time.monotonic() - began < 10
        assert round_ < 3
        system.fresh.launch()
    all_delivered(system, http, "/warm", 120, 40)
    assert set(http.times("/warm").values()) == {1}
