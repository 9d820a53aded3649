"""The API as it serves callers from outside, without workers."""

from collections.abc import Callable, Iterator

import pytest

from notifier.security import api_keys
from tests.support.raw_http import SETTINGS
from tests.support.running import Running


@pytest.fixture(scope="module")
def api(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API that asks for keys; nothing else runs."""
    system = new_system(**SETTINGS)
    system.start(only=[system.api])
    yield system
    system.stop()


@pytest.fixture(scope="module")
def key(api: Running) -> str:
    """A key for everything but administration, which the API has seen."""
    key = api_keys.create(api.engine, "caller", ["send", "read"])
    assert api.get("/api/v1/events", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    return key
