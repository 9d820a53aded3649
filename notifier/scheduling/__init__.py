"""The clock: hands over what is due, takes back what a lost worker held, and begins the next channel.

May import: notifications and every room below it.
Never sends anything.
"""
