"""Commands of `manage.py` that start and stop things."""
