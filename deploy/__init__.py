"""The embedded stack: Postgres, Valkey and every process of Notifier, started and watched by one command."""
