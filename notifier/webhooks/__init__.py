"""Webhook subscriptions: their targets, and the health and the rate limit of each endpoint.

May import: notifications and every room below it.
Never sends a request.
"""
