"""All faults: each module registers its own, and this is the order of the report."""

from tests.chaos import (
    faults_of_postgres,  # noqa: F401 -- registers
    faults_of_processes,  # noqa: F401 -- registers
    faults_of_providers,  # noqa: F401 -- registers
    faults_of_redis,  # noqa: F401 -- registers
    mixed,  # noqa: F401 -- registers
)
from tests.chaos.faults import FAULTS

__all__ = ["FAULTS"]
