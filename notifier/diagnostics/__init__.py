"""Answers to "why?": the timeline of a notification, its explanation, and what is on record about it.

May import: delivery and every room below it.
Never changes a row.
"""
