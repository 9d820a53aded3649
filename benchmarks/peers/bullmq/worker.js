// Delivers: 50 jobs at a time over kept connections, and notes in Postgres what was delivered.
import { Worker } from "bullmq";
import { Agent, request } from "undici";
import { pool, QUEUE, redis } from "./shared.js";

const DONE = { name: "done", text: "UPDATE notifications SET status = 'delivered', delivered_at = now() WHERE id = $1" };
const dispatcher = new Agent({ connections: 50 });

new Worker(
  QUEUE,
  async ({ data: { notification, recipient, payload } }) => {
    const answer = await request(recipient, {
      method: "POST",
      headers: { "content-type": "application/json", "webhook-id": notification },
      body: JSON.stringify(payload),
      dispatcher,
    });
    await answer.body.dump();
    if (answer.statusCode >= 300) throw new Error(`HTTP ${answer.statusCode}`);
    await pool.query({ ...DONE, values: [notification] });
  },
  { connection: redis, concurrency: 50 },
);
