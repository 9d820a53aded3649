"""The clock: hands over due rows, takes back rows of lost workers, and begins the next channel.

May import: notifications and every room below it.
Never sends anything.
"""
