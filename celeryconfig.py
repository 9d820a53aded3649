"""Celery's settings. Postgres is the truth of what is due; messages are hints to look now.

So nothing below is load-bearing for delivery. Each line avoids a fault that happened without it.
"""

from celery.schedules import crontab

from config.broker import RETRY_POLICY, celery_settings, is_amqp
from config.queues import ALL, CLOCK
from config.settings import load_settings

_settings = load_settings(database=False)  # beat and Flower have none
_is_rabbitmq = is_amqp(_settings.broker)

# `broker_url`, `broker_transport_options` and, with TLS, `broker_use_ssl`.
globals().update(celery_settings(_settings))
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a broker that is away is waited for, however long

task_queues = {name: {"queue_arguments": {"x-queue-type": "quorum"}} if _is_rabbitmq else {} for name in ALL}
task_default_queue = CLOCK
task_create_missing_queues = False  # a misspelt queue is an error, not a queue that nobody reads
task_publish_retry_policy = RETRY_POLICY
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True

# No message waits in a worker's memory.
task_acks_late = True
worker_prefetch_multiplier = 1
worker_cancel_long_running_tasks_on_connection_loss = False  # a claim in Postgres keeps them from running twice
# Delivery waits on sockets and releases the GIL. Its deadlines are the providers' own: Celery's time limits
# do nothing in a threads pool.
worker_pool = "tasks.pool:PriorityPool" if _is_rabbitmq else "threads"
worker_consumer = "tasks.consumer:Consumer"
worker_concurrency = _settings.worker_concurrency
worker_hijack_root_logger = False
worker_send_task_events = False  # Flower switches them on while it runs; they cost a sixth of a worker's time
enable_utc = True
timezone = "UTC"

beat_scheduler = "tasks.beat:TickScheduler"
beat_max_loop_interval = 1
beat_schedule = {
    "hand over what is due": {
        "task": "tasks.hand_over_due",
        "schedule": 1.0,
        # Absolute and by the beat's clock: two hosts may well be some seconds apart.
        "options": {"queue": CLOCK, "expires": 120},
    },
    # By the clock on the wall: a beat that is started again every half hour would never come to an interval's end.
    "make partitions ahead": {
        "task": "tasks.make_partitions",
        "schedule": crontab(minute="*/10"),
        "options": {"queue": CLOCK, "expires": 3600},
    },
    "purge what is old": {
        "task": "tasks.purge",
        "schedule": crontab(minute=40),
        "options": {"queue": CLOCK, "expires": 3600},
    },
}
