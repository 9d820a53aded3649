// Accepts events: one statement writes the event and its notification, then a job is queued.
import { randomUUID } from "node:crypto";
import { Queue } from "bullmq";
import Fastify from "fastify";
import { createTables, pool, QUEUE, redis } from "./shared.js";

const WRITE = {
  name: "write",
  text: `WITH event AS (
      INSERT INTO events (id, event_type, payload, idempotency_key) VALUES ($1, $2, $3, $4)
      ON CONFLICT (idempotency_key) DO NOTHING RETURNING id
    ) INSERT INTO notifications (id, event_id, channel, recipient) SELECT $5, id, $6, $7 FROM event RETURNING id`,
};
const body = {
  type: "object",
  required: ["event_type", "channel", "recipient"],
  properties: {
    event_type: { type: "string", minLength: 1, maxLength: 128 },
    channel: { enum: ["webhook"] },
    recipient: { type: "string", minLength: 1, maxLength: 2048 },
    payload: { type: "object" },
    idempotency_key: { type: "string", minLength: 1, maxLength: 255 },
  },
};

const queue = new Queue(QUEUE, { connection: redis });
const app = Fastify();

app.get("/x", async () => ({ ok: true }));
app.post("/api/v1/events", { schema: { body } }, async (request, reply) => {
  const { event_type, channel, recipient, payload = {}, idempotency_key = null } = request.body;
  const [id, notification] = [randomUUID(), randomUUID()];
  const values = [id, event_type, payload, idempotency_key, notification, channel, recipient];
  const written = await pool.query({ ...WRITE, values });
  if (written.rowCount) {
    await queue.add("deliver", { notification, recipient, payload }, { attempts: 5, removeOnComplete: true });
  }
  reply.code(202);
  return { id, duplicate: !written.rowCount };
});

await createTables();
await app.listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
