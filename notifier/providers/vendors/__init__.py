"""Vendors: each file sends through one vendor or reads its receipts, with its table of codes and outcomes on top."""
