"""TLS before a PostgreSQL that knows none: certificates, and a door that speaks TLS outside and plain inside."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from orchestration.services import Certificates

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""How a client asks for TLS: https://www.postgresql.org/docs/18/protocol-message-formats.html"""


def issue_certificates(folder: Path, *names: str) -> Certificates:
    """Of a CA made for this, by default for this machine."""
    ca = trustme.CA()
    leaf = ca.issue_cert(*(names or ("127.0.0.1", "localhost")))
    found = Certificates(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    found.ca.write_bytes(ca.cert_pem.bytes())
    found.certificate.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return found


@contextlib.contextmanager
def tls_door(port: int, certificates: Certificates) -> Iterator[int]:
    """The port of a door on 127.0.0.1 to a PostgreSQL's port. Who does not ask for TLS is sent away."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_open, args=(door, port, context), daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def _open(door: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = door.accept()
            threading.Thread(target=_serve, args=(client, port, context), daemon=True).start()


def _serve(client: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError), client:
        if client.recv(8, socket.MSG_WAITALL) != SSL_REQUEST:
            return
        client.sendall(b"S")
        with (
            context.wrap_socket(client, server_side=True) as outside,
            socket.create_connection(("127.0.0.1", port)) as inside,
        ):
            _carry(outside, inside)


def _carry(outside: ssl.SSLSocket, inside: socket.socket) -> None:
    """Until one side ends. In one thread, since an SSL socket is not for two."""
    outside.settimeout(0.005)
    inside.settimeout(0.005)
    while True:
        for source, target in ((outside, inside), (inside, outside)):
            with contextlib.suppress(TimeoutError):
                data = source.recv(65_536)
                if not data:
                    return
                target.settimeout(None)
                target.sendall(data)
                target.settimeout(0.005)
