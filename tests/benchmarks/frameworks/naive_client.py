"""A client that has the names on standard input greeted, and prints the greetings: PORT.

A thread sends all names as lines, and the main thread takes the replies apart. It trusts the
server, and has no time limits.
"""

import socket
import sys
import threading

from tests.benchmarks.servers import CHUNK_SIZE, HOST
from tests.support.words import GOODBYE, PROMPT, WELCOME


def main(port: int) -> None:
    with socket.create_connection((HOST, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        names = sys.stdin.buffer.read() + b"exit\n"
        threading.Thread(target=sock.sendall, args=[names]).start()
        tail = b""
        while data := sock.recv(CHUNK_SIZE):
            words = (tail + data).split(PROMPT)
            tail = words.pop()
            for word in words:
                if word and word != WELCOME:
                    sys.stdout.buffer.write(word)
    if tail != GOODBYE:
        sys.exit("the server has not said goodbye")


if __name__ == "__main__":
    main(int(sys.argv[1]))
