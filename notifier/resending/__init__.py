"""Acts on existing notifications: reschedule them, send them again, and recover what a subscription missed.

May import: delivery and every room below it.
Never sends anything itself: it makes rows due.
"""
