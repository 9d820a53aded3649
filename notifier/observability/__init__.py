"""Metrics, traces, heartbeats, and the request that caused each piece of work.

May import: storage and every room below it.
Never decides anything.
"""
