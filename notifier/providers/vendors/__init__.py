"""Vendors: each file sends through one of them, or reads its receipts; its table of codes stands on top."""
