"""Events: accept them exactly once, and fan them out to notifications.

May import: delivery and every room below it.
Never sends anything.
"""
