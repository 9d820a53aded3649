"""API keys, the audit log, secrets and addresses encrypted at rest, signatures, redaction.

May import: runtime, models and vocabulary.
Never knows HTTP.
"""
