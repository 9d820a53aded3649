"""A warm shutdown: what was not begun is handed back at once, what is under way is waited for."""

from collections import Counter
from collections.abc import Callable

from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, wait_for


def _post(system: Running, events: list[dict[str, str]]) -> None:
    answer = system.post("/api/v1/events/batch", {"events": [{"event_type": "x", **event} for event in events]})
    assert answer.json()["accepted"] == len(events), answer.text


def _counts(system: Running) -> dict[str, int]:
    return {row.status: row.rows for row in system.sql("SELECT status, count(*) AS rows FROM notifications GROUP BY 1")}


def test_a_worker_that_is_ended_hands_back_what_it_has_not_begun(
    start_system: Callable[..., Running], http: HttpReceiver
) -> None:
    with SmtpReceiver() as slow:
        # Long enough that no timeout is what ends anything here.
        system = start_system(
            NOTIFIER_EMAIL=f"{slow.dsn}?tls=none", NOTIFIER_EMAIL_TIMEOUT="60", NOTIFIER_WEBHOOK_TIMEOUT="60"
        )
        answer_mails, answer_webhooks = slow.hold(), http.hold("/hangs")
        webhooks = [
            {"channel": "webhook", "recipient": http.url(f"/{'hangs' if n % 10 == 0 else 'fine'}")} for n in range(300)
        ]
        emails = [{"channel": "email", "recipient": f"{n}@example.com"} for n in range(60)]
        _post(system, webhooks + emails)
        wait_for(lambda: slow.kept_waiting and http.received("/hangs"), what="sends that are under way")

        system.fresh.terminate()

        def only_what_is_under_way() -> bool:
            return _counts(system).get("sending", 0) == len(slow.kept_waiting) + len(http.received("/hangs"))

        wait_for(only_what_is_under_way, 10, "the rest to be handed back")
        under_way = (len(slow.kept_waiting), len(http.received("/hangs")))
        # It does not end before what it has begun, and begins nothing more.
        wait_for(lambda: "Warm shutdown" in system.fresh.log.read_text())
        assert system.fresh.alive()
        assert (len(slow.kept_waiting), len(http.received("/hangs"))) == under_way
        other = system.add_worker("fresh", "fresh-2")
        system.start(only=[other])
        wait_for(lambda: len(http.received("/fine")) == 270, 30, "another worker to send the rest")
        answer_mails()
        answer_webhooks()
        wait_for(lambda: not system.fresh.alive(), 10, "the worker to end")
        assert system.fresh.exit_code == 0
        wait_for(lambda: _counts(system) == {"delivered": 300, "sent": 60}, 40)
        assert Counter({**http.times("/fine"), **http.times("/hangs")}).most_common(1)[0][1] == 1
        assert Counter(rcpt for mail in slow.mails for rcpt in [str(mail["to"])]).most_common(1)[0][1] == 1
        # Nobody was taken for dead.
        assert system.sql("SELECT count(*) FROM attempts WHERE outcome <> 'accepted'")[0][0] == 0
