"""Parts that vendors' HTTP APIs share: requests, kept connections, guarded addresses, answers."""
