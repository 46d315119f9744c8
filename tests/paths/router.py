"""The process between the two hosts of a path: `python -m tests.paths.router IMPAIRMENT SEED`.

Standard input is the channel to the process that uses it; see `path.py`.
"""

import contextlib
import ctypes
import fcntl
import heapq
import json
import math
import os
import random
import select
import signal
import socket
import struct
import sys
import time

import attrs

from .path import Impairment

assert sys.platform == "linux"

LIMIT = 300  # seconds, after which it ends in any case
SERVER, CLIENT = "10.77.0.2", "10.77.0.1"

# From linux/if_tun.h, linux/sockios.h, linux/if.h, linux/sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _IFF_UP = 0x8914, 0x8916, 0x891C, 0x0001
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def main() -> None:
    """Make the hosts, and pass on what they send to each other, until the channel ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback
    signal.alarm(LIMIT)
    impairment, seed = Impairment(**json.loads(sys.argv[1])), sys.argv[2]
    channel = socket.socket(fileno=0)
    try:
        at_server = enter_new_host(SERVER)
        listener = socket.create_server((SERVER, 0))
        namespaces = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("user", "net")]
        at_client = enter_new_host(CLIENT)
    except OSError as exc:
        channel.send(f"paths cannot be made here: {exc}".encode())
        return
    with listener:
        socket.send_fds(channel, [b"made"], [listener.fileno(), *namespaces])
    there = OneWay(at_client, at_server, impairment, f"{seed} there")
    ways = there, OneWay(at_server, at_client, impairment, f"{seed} back")
    inputs = [at_client, at_server, channel.fileno()]
    while True:
        soonest = min(way.soonest() for way in ways)
        wait = None if soonest == math.inf else max(0.0, soonest - time.monotonic())
        ready, _, _ = select.select(inputs, [], [], wait)
        for way in ways:
            way.take()
            way.deliver()
        if channel.fileno() in ready and not answer(channel, *ways):
            return


def answer(channel: socket.socket, there: "OneWay", back: "OneWay") -> bool:
    """Do what the other process asks for; return whether there still is one."""
    match channel.recv(16):
        case b"socket":
            with socket.socket() as sock:  # of the host that was entered last
                socket.send_fds(channel, [b"opened"], [sock.fileno()])
        case b"count":
            both = {what: number + back.counted[what] for what, number in there.counted.items()}
            channel.send(json.dumps(both).encode())
        case b"cut":
            back.cut()
            channel.send(b"done")
        case _:
            return False
    return True


def enter_new_host(address: str) -> int:
    """Go into a new network namespace with one TUN device; return the device's other end."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Without being root it may be allowed in a user namespace.
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "a network namespace")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = b"path"
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(sock, request, packed)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _IFF_UP))
    return device


class OneWay:
    """One direction of the path."""

    def __init__(self, source: int, target: int, impairment: Impairment, seed: str) -> None:
        self._source, self._target, self._impairment = source, target, impairment
        self._random = random.Random(seed)
        self._waiting: list[tuple[float, int, bytes]] = []  # a heap: when each arrives, its number
        self._first = math.inf  # when the first packet was sent
        self._last = -math.inf  # when the last one arrives of those that keep the order
        self.counted = dict.fromkeys(("sent", "lost", "went ahead", "sent while dead"), 0)

    def soonest(self) -> float:
        """Return when the next packet arrives."""
        return self._waiting[0][0] if self._waiting else math.inf

    def take(self) -> None:
        """Take what was sent, and decide when each packet arrives, if it ever does."""
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._source, 65536)
                if packet[0] >> 4 == 4:  # the kernel looks for neighbours that speak IPv6, too
                    self._decide(packet, time.monotonic())

    def _decide(self, packet: bytes, now: float) -> None:
        how, counted = self._impairment, self.counted
        self._first = min(self._first, now)
        counted["sent"] += 1
        if 0 <= now - self._first - how.dead_from < how.dead_for:
            counted["sent while dead"] += 1
            return
        if self._random.random() < how.loss:
            counted["lost"] += 1
            return
        if self._random.random() < how.ahead:
            counted["went ahead"] += 1
            arrival = now
        else:
            delay = how.delay + self._random.uniform(-how.jitter, how.jitter)
            arrival = self._last = max(now + delay, self._last)
        heapq.heappush(self._waiting, (arrival, counted["sent"], packet))

    def cut(self) -> None:
        """Lose all that is on its way, and all that is sent from now on."""
        self._impairment = attrs.evolve(self._impairment, loss=1)
        self.counted["lost"] += len(self._waiting)
        self._waiting.clear()

    def deliver(self) -> None:
        """Hand over what arrives by now."""
        while self.soonest() <= time.monotonic():
            packet = heapq.heappop(self._waiting)[2]
            try:
                os.write(self._target, packet)
            except BlockingIOError:  # its queue is full, as a router's may be
                self.counted["lost"] += 1


if __name__ == "__main__":
    main()
