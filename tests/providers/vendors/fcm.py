"""FCM HTTP v1, with an OAuth server of its own on this machine."""

import functools
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

_FOLDER = tempfile.TemporaryDirectory(prefix="notifier-fcm-")


class _Tokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = orjson.dumps({"access_token": "ya29.test", "expires_in": 3599, "token_type": "Bearer"})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
        pass


@functools.cache
def _pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def key_file(token_uri: str) -> Path:
    """A service account's key file whose tokens come from a URL."""
    file = Path(_FOLDER.name) / f"{abs(hash(token_uri))}.json"
    account = {
        "type": "service_account",
        "project_id": "shop-1",
        "private_key_id": "1",
        "private_key": _pem(),
        "client_email": "notifier@shop-1.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    file.write_bytes(orjson.dumps(account))
    return file


@functools.cache
def _good_key_file() -> Path:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return key_file(f"http://127.0.0.1:{server.server_address[1]}/token")


def error(status: int, general: str, fcm: str | None = None, field: str | None = None, *lines: str) -> bytes:
    """An error in the shape of google.rpc.Status."""
    details: list[dict[str, Any]] = []
    if fcm:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": fcm})
    if field:
        violation = {"field": field, "description": "The registration token is not a valid FCM registration token"}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    body = {"error": {"code": status, "message": "Something is wrong.", "status": general, "details": details}}
    return response(status, orjson.dumps(body), "content-type: application/json; charset=UTF-8", *lines)


def _not_a_token() -> bytes:
    """Return what FCM says of most tokens that are not valid; no field is named."""
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"}]
    message = "The registration token is not a valid FCM registration token"
    body = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}}
    return response(400, orjson.dumps(body))


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /v1/projects/shop-1/messages:send HTTP/1.1"
    assert request.headers["authorization"] == "Bearer ya29.test"
    assert orjson.loads(request.body) == {
        "message": {
            "token": message.recipient,
            "notification": {"title": message.subject, "body": message.text},
            "data": {"notification_id": str(message.id)},
        }
    }


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="fcm",
    channel=Channel.PUSH,
    dsn=lambda port: f"fcm://127.0.0.1:{port}{_good_key_file()}?tls=none",
    recipient="bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1-abc",
    success=response(200, b'{"name":"projects/shop-1/messages/0:1500415314455276%31bd1c9631bd1c96"}'),
    message_id="projects/shop-1/messages/0:1500415314455276%31bd1c9631bd1c96",
    errors=[
        Case("unregistered", error(404, "NOT_FOUND", "UNREGISTERED"), _R, Fault.RECIPIENT),
        Case("other sender", error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), _R),
        Case("token", error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.token"), _R, Fault.RECIPIENT),
        Case("not a token", _not_a_token(), _R, Fault.RECIPIENT),
        Case("message", error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "message.data"), _R),
        Case("bare 400", error(400, "INVALID_ARGUMENT"), _R),
        Case(
            "quota",
            error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", None, "retry-after: 60"),
            _U,
            Fault.THROTTLED,
            60.0,
        ),
        Case("unavailable", error(503, "UNAVAILABLE", "UNAVAILABLE", None, "retry-after: 5"), _U, Fault.PROVIDER, 5.0),
        Case("internal", error(500, "INTERNAL", "INTERNAL"), _U, Fault.PROVIDER),
        Case("apns", error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), _U, Fault.ROUTE),
        Case("quota, no wait", error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), _U, Fault.THROTTLED, 60.0),
        Case("unauthenticated", error(401, "UNAUTHENTICATED"), _U, Fault.PROVIDER),
        Case("denied", error(403, "PERMISSION_DENIED"), _U, Fault.PROVIDER),
        Case("project", error(404, "NOT_FOUND"), _U, Fault.PROVIDER),
    ],
    check=check,
)
