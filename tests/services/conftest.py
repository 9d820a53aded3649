"""Tests that need programs of others: `make test-services`. They are no part of `make test`, which needs none."""

import shutil
from typing import Final

import pytest

#: Program → the package of Debian that it is in.
PROGRAMS: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "erl": "rabbitmq-server",
    "pgbouncer": "pgbouncer",
}


def pytest_configure() -> None:
    """Say at once what is not there. Nothing is skipped: who asks for these tests wants to know what they say."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        packages = " ".join(sorted({PROGRAMS[program] for program in missing}))
        raise pytest.UsageError(
            f"{' and '.join(missing)} not found: apt-get install --no-install-recommends {packages},"
            " or let .ci/run unpack what is missing into .services"
        )
