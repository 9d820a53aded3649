"""Rolls a release out on Kubernetes: migrate, try one canary, promote, and roll back what does not become ready.

`python -m deploy.rollout --help` says how. It runs beside the cluster, in CI or on an operator's machine, and drives it
through kubectl alone; nothing else of Notifier is imported here.
"""
