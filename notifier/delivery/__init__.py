"""Delivery of a batch: claim, gate, compose, send, record.

May import: webhooks and every room below it.
Never decides when a notification is due.
"""
