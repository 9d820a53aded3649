// What the server and the worker share: Postgres, Redis, and the name of the queue.
import pg from "pg";
import Redis from "ioredis";

export const QUEUE = "deliveries";
export const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 20 });
export const redis = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });

export async function createTables() {
  await pool.query(`
    CREATE TABLE IF NOT EXISTS events (
      id uuid PRIMARY KEY, event_type text NOT NULL, payload jsonb NOT NULL, idempotency_key text UNIQUE,
      created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS notifications (
      id uuid PRIMARY KEY, event_id uuid NOT NULL REFERENCES events, channel text NOT NULL, recipient text NOT NULL,
      status text NOT NULL DEFAULT 'queued', delivered_at timestamptz
    )`);
}
