"""A client of echo servers. Arguments: port, connections, seconds. Prints echoes per second."""

from __future__ import annotations

import selectors
import socket
import sys
import time

MESSAGE = b"x" * 64


def main(port: int, connections: int, seconds: float) -> float:
    """Send a message on each connection as soon as the previous one has come back."""
    with selectors.DefaultSelector() as selector:
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(connections)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(client, selectors.EVENT_READ, client)
        echoes, began = 0, time.perf_counter()
        for client in clients:
            client.send(MESSAGE)
        while (now := time.perf_counter()) - began < seconds:
            for key, _ in selector.select(1):
                assert len(key.data.recv(100)) == len(MESSAGE)
                echoes += 1
                key.data.send(MESSAGE)
        for client in clients:
            client.close()
    return echoes / (now - began)


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
