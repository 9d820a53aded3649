"""The words that all rooms share: states, reasons, queues, ids, times, addresses, names, errors.

May import: the standard library and small parsers.
Never reads or writes a row.
"""
