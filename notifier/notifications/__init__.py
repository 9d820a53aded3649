"""The state of notifications: claims, attempts, retries, dead letters, cancellation, holds, receipts, status events.

May import: planning and every room below it.
Never knows a vendor, or renders a text.
"""
