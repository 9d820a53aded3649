"""The types of problems: each has a path that stays, with a page that says what it means and what to do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class _About:
    status: int
    summary: str
    meaning: str
    remedy: str
    #: An example of its `detail`, as an answer has it.
    detail: str


class ProblemType(StrEnum):
    """The kind of a problem with a request, for programs: the last part of `type`."""

    BAD_REQUEST = "bad-request"
    INVALID_JSON = "invalid-json"
    INVALID_API_KEY = "invalid-api-key"
    INVALID_SIGNATURE = "invalid-signature"
    MISSING_SCOPE = "missing-scope"
    CROSS_SITE = "cross-site"
    KEY_RESTRICTED = "key-restricted"
    NOT_FOUND = "not-found"
    INVALID_ID = "invalid-id"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    TIMED_OUT = "timed-out"
    CONFLICT = "conflict"
    BODY_TOO_LARGE = "body-too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    MISDIRECTED_REQUEST = "misdirected-request"
    VALIDATION_FAILED = "validation-failed"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    RATE_LIMITED = "rate-limited"
    INTERNAL_ERROR = "internal-error"
    UNAVAILABLE = "unavailable"

    @property
    def path(self) -> str:
        """Return the `type` of a problem, a path at this server."""
        return f"/problems/{self.value}"

    @property
    def status(self) -> int:
        """Return its HTTP status."""
        return ABOUT[self].status

    @property
    def summary(self) -> str:
        """Return a short summary of the problem, the same each time."""
        return ABOUT[self].summary


ABOUT: Final = {
    ProblemType.BAD_REQUEST: _About(
        400,
        "Bad request",
        "The request is not one that HTTP knows, or a provider's callback is not what the provider documents.",
        "Read `detail`; the same request fails again.",
        "This is no request of HTTP/1.1.",
    ),
    ProblemType.INVALID_JSON: _About(
        400,
        "Invalid JSON",
        "The body is not JSON, or not UTF-8.",
        "`detail` says at which character.",
        "The body is not JSON: Expecting value: line 1 column 1 (char 0).",
    ),
    ProblemType.INVALID_API_KEY: _About(
        401,
        "Invalid API key",
        "There is no API key, or none that is in use: unknown, expired, rotated away or revoked.",
        "Send `Authorization: Bearer …` with a key of `manage.py api-keys create`.",
        "Send a valid API key: 'Authorization: Bearer …'.",
    ),
    ProblemType.INVALID_SIGNATURE: _About(
        401,
        "Invalid signature",
        "A receipt is not signed by the provider whose key is in the settings, or was signed for another address.",
        "Compare the provider's key and `NOTIFIER_PUBLIC_URL` with what the provider calls.",
        "This is not signed by twilio, or not for this address: NOTIFIER_PUBLIC_URL must be the one it calls.",
    ),
    ProblemType.MISSING_SCOPE: _About(
        403,
        "Missing scope",
        "The key is in use, but lacks the scope that this operation, its `critical` or its `reveal=1`, needs.",
        "`detail` names the scope; make a key that has it.",
        "This key may not do that: it lacks the scope 'admin'.",
    ),
    ProblemType.CROSS_SITE: _About(
        403,
        "Cross-site request",
        "No API key is asked for (`NOTIFIER_AUTH=off`), and a page of another site asks for a change.",
        "Send it from a program, or from a page of this server; or have keys asked for.",
        "A page of another site may change nothing here while no API key is asked for.",
    ),
    ProblemType.KEY_RESTRICTED: _About(
        403,
        "Key restricted",
        "The key may use only some channels or event types: this is another one, or names none. Nothing was changed.",
        "`detail` names those that it may use; name one of them, or make a key that may use more.",
        "This key may use only email, sms.",
    ),
    ProblemType.NOT_FOUND: _About(
        404,
        "Not found",
        "There is nothing at this path: no such record, or no such path.",
        "It may never have been there, have been deleted, or its retention may be over.",
        "There is nothing at this path.",
    ),
    ProblemType.INVALID_ID: _About(
        404,
        "Invalid id",
        "The id in the path is no UUID, so there can be no such record.",
        "Use an `id` as an answer gave it, such as `01a1fc47-52fc-7015-a681-4dd01035c71e`.",
        "The id in the path is no UUID, so there is no such record.",
    ),
    ProblemType.METHOD_NOT_ALLOWED: _About(
        405,
        "Method not allowed",
        "This path does not take this method.",
        "The header `Allow` names those it takes.",
        "This path does not take PUT.",
    ),
    ProblemType.TIMED_OUT: _About(
        408,
        "Timed out",
        "The request's head or body did not come in time, or came too slowly.",
        "Repeat it; nothing was done. A large batch may need to be sent in parts.",
        "The body did not come in time.",
    ),
    ProblemType.CONFLICT: _About(
        409,
        "Conflict",
        "The record is in a state that does not allow this, or a rule forbids it. Nothing was changed.",
        "`detail` says why; where a rule forbids it, `reason` names the rule.",
        "This dead letter was requeued before.",
    ),
    ProblemType.BODY_TOO_LARGE: _About(
        413,
        "Body too large",
        "The body, or an item of a batch, is larger than is allowed.",
        "`detail` says how large it may be; send batches in parts.",
        "The body is larger than 262144 bytes.",
    ),
    ProblemType.UNSUPPORTED_MEDIA_TYPE: _About(
        415,
        "Unsupported media type",
        "The body is not declared to be JSON.",
        "Send `Content-Type: application/json`; for batches `application/x-ndjson` too.",
        "Send JSON, with 'Content-Type: application/json'.",
    ),
    ProblemType.MISDIRECTED_REQUEST: _About(
        421,
        "Misdirected request",
        "No API key is asked for (`NOTIFIER_AUTH=off`): then only this machine is answered, by names of the server.",
        "Use the host of `NOTIFIER_PUBLIC_URL` or `localhost`, or name the host in `NOTIFIER_ALLOWED_HOSTS`.",
        "This server does not go by the name in Host; NOTIFIER_ALLOWED_HOSTS can add it.",
    ),
    ProblemType.VALIDATION_FAILED: _About(
        422,
        "Validation failed",
        "The request is well-formed, but something in it is not as the API's description has it. Nothing was changed.",
        "`errors` names each field, with what is wrong with it.",
        "The request is not valid; see errors.",
    ),
    ProblemType.IDEMPOTENCY_KEY_REUSED: _About(
        422,
        "Idempotency key reused",
        "The idempotency key was used before, with another body. Nothing was changed.",
        "Use a new key for a new request, and the same body for a repeated one.",
        "The request is not valid; see errors.",
    ),
    ProblemType.RATE_LIMITED: _About(
        429,
        "Rate limited",
        "The key makes more requests a second than it may, or too many unknown keys came from the address.",
        "Wait as long as `Retry-After` says, in seconds, and repeat the request.",
        "This key may make 10 requests a second, and this is one more.",
    ),
    ProblemType.INTERNAL_ERROR: _About(
        500,
        "Internal error",
        "Something went wrong here. It has been logged with the answer's `X-Request-Id`.",
        "Repeat the request, with its idempotency key; where it fails again, name the `X-Request-Id`.",
        "Something went wrong here. It has been logged.",
    ),
    ProblemType.UNAVAILABLE: _About(
        503,
        "Unavailable",
        "Postgres cannot be reached or cannot write now, or did not answer in time, so that it is not known whether"
        " anything was written; or too much is being read at once.",
        "Wait as long as `Retry-After` says, in seconds, and repeat the request, with its idempotency key.",
        "Postgres cannot be reached.",
    ),
}


def of_status(status: int) -> ProblemType:
    """Return the plain type of a status; if it has none, the type of its class."""
    plain = next((kind for kind in ProblemType if kind.status == status), None)
    return plain or (ProblemType.BAD_REQUEST if status < 500 else ProblemType.INTERNAL_ERROR)
