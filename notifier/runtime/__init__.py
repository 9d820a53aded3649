"""Keep processes running: isolated failures, supervised threads, progress counters.

May import: models and vocabulary.
Never knows a table, or a rule of the product.
"""
