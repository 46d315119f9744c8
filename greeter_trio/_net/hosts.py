"""Hosts: one form of a name, for the resolver, for TLS's SNI and for the check of the certificate.

Python's `ssl` encodes names by IDNA 2003 and Trio's resolver by IDNA 2008, and these differ: the
first makes `fass.example` of `faß.example`, which may be somebody else's.
"""

import itertools
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

import trio

from .optional import optional

_idna: Any = optional("idna")  # Trio depends on it, and resolves names with it

Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A kind of address, and the address as a socket of this kind takes it."""


def ascii_host(host: str) -> str:
    """Return a name as DNS has it: IDNA 2008 (RFC 5891, UTS 46), in lower case.

    An address stays as it is. Raises UnicodeError for what cannot be the name of a host.
    """
    if not host.isascii():
        return str(_idna.encode(host, uts46=True).decode("ascii"))
    name, percent, zone = host.partition("%")  # the zone of an IPv6 address has its own letters
    return name.lower() + percent + zone


def certified_host(host: str) -> str:
    """Return a host as a certificate has it.

    It is without a final dot, which is for resolvers (RFC 6066, 3), and without the zone of an
    address, which is this machine's own (RFC 6874).
    """
    return ascii_host(host).partition("%")[0].removesuffix(".")


async def resolve(
    host: str | None, port: int, *, family: int = socket.AF_UNSPEC, flags: int = 0
) -> Sequence[Address]:
    """Return the addresses of a host, in the order in which they are to be tried (RFC 8305, 4).

    `family` is AF_INET or AF_INET6 where only these are wanted, `host` None and AI_PASSIVE in
    `flags` for every interface of this machine. Raises `socket.gaierror`,
    UnicodeError for what cannot be the name of a host, and OSError where the system allows no
    thread more, which resolving takes.
    """
    try:
        found = await trio.socket.getaddrinfo(
            host and ascii_host(host), port, family=family, type=socket.SOCK_STREAM, flags=flags
        )
    except RuntimeError as exc:
        raise no_thread(exc) from exc
    addresses = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found)
    kinds = [
        [address for address in addresses if address[0] == kind]
        for kind in dict.fromkeys(kind for kind, _ in addresses)
    ]
    return [address for row in itertools.zip_longest(*kinds) for address in row if address]


def no_thread(exc: RuntimeError) -> OSError:
    """Return the error for what takes a thread, where the system allows no thread more."""
    return OSError(f"a thread is needed to resolve its name, and cannot be started ({exc})")
