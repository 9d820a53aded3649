"""The content of messages: templates and the process that renders them, attachments, senders.

May import: providers and every room below it.
Never decides whether a message is sent.
"""
