"""From an event to planned notifications: routes, handlers, subscribers, reminders.

May import: content and every room below it.
Never changes the state of an existing notification.
"""
