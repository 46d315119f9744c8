"""The standard library's `socketserver`, with a thread for each client."""

import socket
import socketserver
import threading
from argparse import Namespace

from .common import BACKLOG, announce, parser, stop_socket
from .threads import greet


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = BACKLOG


def main(options: Namespace) -> None:
    """Serve until a signal comes."""
    stop = stop_socket()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            greet(self.request, options, stop)

    with Server((options.host, options.port), Handler) as server:
        announce(*server.socket.getsockname())
        threading.Thread(target=server.serve_forever).start()
        stop.recv(1, socket.MSG_PEEK)
        server.shutdown()
    # The end of the block waits for the handlers.


if __name__ == "__main__":
    main(parser().parse_args())
