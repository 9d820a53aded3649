"""Counts and latencies by minute and hour: made by the clock from what is stored anyway, read by the API.

May import: providers and every room below it.
Never writes to a table of the deliveries, nor adds a statement to accepting or sending.
"""
