"""A server that speaks HTTP/2 over TLS and nothing else, as Apple's does."""

import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

from tests.providers.receivers import Certificate, Listener, Received, listening

#: Status, headers and body for a request; None: the connection is closed without an answer.
Answer = Callable[[Received], tuple[int, dict[str, str], bytes] | None]


@dataclass
class Http2Server:
    """A server that speaks HTTP/2, and the requests that it received over all connections."""

    answer: Answer
    received: list[Received] = field(default_factory=list)
    listener: Listener | None = None

    @property
    def port(self) -> int:
        assert self.listener
        return self.listener.port

    def talk(self, client: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        client.sendall(connection.data_to_send())
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = defaultdict(bytes)
        while data := client.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id] = dict(event.headers or [])  # type: ignore[arg-type]  # decoded
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data or b""
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    head = heads.pop(event.stream_id)
                    line = f"{head.pop(':method')} {head.pop(':path')} HTTP/2"
                    request = Received(line, head, bodies.pop(event.stream_id, b""))
                    self.received.append(request)
                    said = self.answer(request)
                    if said is None:
                        return
                    status, headers, body = said
                    connection.send_headers(event.stream_id, [(":status", str(status)), *headers.items()])
                    connection.send_data(event.stream_id, body, end_stream=True)
            client.sendall(connection.data_to_send())


@contextmanager
def http2(answer: Answer, certificate: Certificate) -> Iterator[Http2Server]:
    """Run one for a while."""
    context: ssl.SSLContext = certificate.server_context()
    context.set_alpn_protocols(["h2"])
    server = Http2Server(answer)
    with listening(server.talk, context) as listener:
        server.listener = listener
        yield server
