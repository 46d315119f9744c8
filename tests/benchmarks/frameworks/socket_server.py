"""A `StreamRequestHandler` under `socketserver.ThreadingTCPServer`."""

import contextlib
import socket
from socketserver import StreamRequestHandler, ThreadingTCPServer

from tests.benchmarks.servers import BACKLOG, HOST, IDLE_TIMEOUT, OPENING, answer


class Greeter(StreamRequestHandler):
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.wfile.write(OPENING)
        with contextlib.suppress(OSError):
            for line in self.rfile:
                reply, _, over = answer(line)
                self.wfile.write(reply)
                if over:
                    self.connection.shutdown(socket.SHUT_WR)
                    self.rfile.read()
                    return


class Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = BACKLOG


if __name__ == "__main__":
    with Server((HOST, 0), Greeter) as server:
        server.serve_forever()
