"""Peers: small programs of other shapes that do the same job, so that our speed has something to stand beside.

- `textbook`: Flask, a SQLAlchemy session, one commit and one `.delay()` an event; a Celery task and one
  `requests.post` a notification. It is how most first versions are written.
- `bullmq`: Fastify, node-postgres and BullMQ, as a Node team writes it. It needs node and npm. Its webhooks are not
  signed, and an event whose process dies between the commit and the queue is lost.
- `limit`: one process that keeps, signs, sends and records in groups of 500, and is no service at all.

The first two accept our event, keep it and its idempotency key in Postgres, and deliver it to its recipient. Neither
has users, preferences, templates, retries in Postgres, dead letters, breakers or limits.

    python -m benchmarks.peers [--seconds 8] [NAME…]
"""
