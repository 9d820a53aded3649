"""Providers: the protocol, the registry, failover, breakers and rate limits; vendors/ has a vendor in each file.

May import: people and every room below it.
Never touches the state of a notification.
"""
