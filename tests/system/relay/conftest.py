"""Services with relay tables."""

import itertools
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import pytest

from deploy.embedded import EmbeddedPostgres
from tests.support.callers import Callers
from tests.support.relaying import Shop
from tests.support.running import Running

_numbers: Final = itertools.count()


@pytest.fixture
def new_shop(system: Running, callers: Callers, postgres: EmbeddedPostgres) -> Callable[..., Shop]:
    """Makes services, each with a database and an API key of its own; `options` as those of a caller."""

    def make(**options: Any) -> Shop:
        name = f"shop-{next(_numbers)}-{uuid4().hex[:8]}"
        postgres.create_database(name)
        return Shop(system, postgres.url(name), callers.new(name=name, **options), name)

    return make


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """A service."""
    return new_shop()
