"""Beat looks at its schedule when a tick is due, and sleeps until then."""

import time
from datetime import timedelta

from celery import Celery

from config.queues import CLOCK
from tasks.beat import TickScheduler


def test_beat_sleeps_until_a_tick_is_due() -> None:
    app = Celery(broker="memory://", set_as_current=False)
    tick = {"task": "tick", "schedule": timedelta(seconds=0.05), "options": {"queue": CLOCK}}
    app.conf.beat_schedule = {"tick": tick}
    scheduler = TickScheduler(app, max_interval=1)
    looks = 0
    # As Celery's beat does it.
    while (ticks := scheduler.schedule["tick"].total_run_count) < 5:
        time.sleep(scheduler.tick() or 0)
        looks += 1
    # One look finds it due, and one finds out how long it is until the next.
    assert looks <= 3 * ticks
