"""What keeps a process going: isolated failures, lasting threads, progress.

May import: models and vocabulary.
Never knows a table, or a rule of the product.
"""
