"""Masked results: results of provider calls, without credentials of the request that an answer repeats."""

from collections.abc import Collection
from dataclasses import replace

from notifier.providers.protocol import EXCERPT, Result
from notifier.security.redaction import without, without_beginning


def without_secrets(result: Result, secrets: Collection[str]) -> Result:
    """Return what became of a message without the credentials that it was sent with, where the answer repeats them."""

    def hide(text: str | None) -> str | None:
        return None if text is None else without(secrets, text)

    excerpt = hide(result.response_excerpt)
    if excerpt is not None and len((result.response_excerpt or "").encode()) >= EXCERPT - 3:
        excerpt = without_beginning(excerpt, secrets)
    headers = result.response_headers
    return replace(
        result,
        error=hide(result.error),
        response_excerpt=excerpt,
        response_headers=headers and {name: hide(value) or "" for name, value in headers.items()},
    )
