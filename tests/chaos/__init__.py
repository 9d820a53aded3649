"""Break the system in every way we know, and judge at the receivers: `make chaos`, `make test-chaos`, `make soak`.

Real processes under `manage.py up`; between them and everything that they speak to stand proxies that can be told to
misbehave. Callers post events, each until it is accepted. Receivers note every message with its time. What was accepted
must have arrived, once. docs/guarantees.md says what is promised, and shows the last report.
"""
