"""People: users, preferences, quiet hours, suppressions, unsubscribe links, export and erasure.

May import: observability and every room below it.
Never sends anything.
"""
