"""Postgres beside its rows: partitions, retention, roles, deadlines, engines.

May import: security and every room below it.
Never knows when or why a notification is sent.
"""
