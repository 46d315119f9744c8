"""The asyncio server of INTEGRATING.md as a command; it can break a rule, so that the kit sees it.

`python -m tests.conformance.misbehaving --fault half-close --port 0`
"""

import argparse
import asyncio
import signal
import sys
from typing import Any, Final

from tests.support.documents import INTEGRATING, code_blocks

from .configuration import config_from_json

_RECEIVE = "        self._connection.receive_data(data, self._loop.time())\n"
_TIME_OUT = "        self._connection.handle_timeout(self._loop.time())\n"
_SPLIT = """\
        for part in filter(None, (data[:2], data[2:])):
            self._connection.receive_data(part, self._loop.time())
"""
_AT_BOB = f"        if b'Bob' in bytes(data):\n            {{}}\n{_RECEIVE}"
_HOLD = """\
        self._held = getattr(self, "_held", b"") + data
        self._loop.call_later(0.15, self._hand_over)

    def _hand_over(self) -> None:
        if data := self._held:
            self._held = b""
            self._connection.receive_data(data, self._loop.time())
"""

FAULTS: Final = {
    "none": ("", ""),
    "half-close": ("self._connection.receive_eof(self._loop.time())", "return False"),
    "judges first": (_RECEIVE, f"{_TIME_OUT}{_RECEIVE}"),
    "early": ("now=self._loop.time())", "now=self._loop.time() - 0.01)"),
    "late": ("call_at(connection.deadline,", "call_at(connection.deadline + 0.7,"),
    "reads while sending": ("self._transport.pause_reading()", "pass"),
    "never gives up": ("if self._transport.get", "if False and self._transport.get"),
    "no patience": ("call_later(SEND_TIMEOUT,", "call_later(0.05,"),
    "joins reads": (_RECEIVE, _HOLD),
    "splits reads": (_RECEIVE, _SPLIT),
    "closes at once": ("transport.write_eof()", "transport.close()"),
    "never closes": ("elif connection.finished:", "elif False:"),
    "loses names": (
        "self._shutting_down = True\n        self._plan_next_call()",
        "self._connection.shutdown(self._loop.time())\n        self._take_outputs()",
    ),
    "leaks": ("self._connection.connection_lost()", "__import__('os').dup(0)"),
    "dies": (_RECEIVE, _AT_BOB.format("__import__('os').abort()")),
    "status": ("", ""),  # see below
}
"""What is changed in the text of the page, and to what."""


def protocol_class(fault: str, send_timeout: float) -> Any:
    """Return `GreeterProtocol` with a fault."""
    (source,) = [each for each in code_blocks("python", INTEGRATING) if "BufferedProtocol" in each]
    old, new = FAULTS[fault]
    assert old in source
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(source.replace(old, new), str(INTEGRATING), "exec"), namespace)
    namespace["SEND_TIMEOUT"] = send_timeout
    return namespace["GreeterProtocol"]


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, and all conversations are over."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    live: set[Any] = set()
    greeter = protocol_class(options.fault, options.send_timeout)

    def protocol() -> Any:
        made = greeter(options.config)
        connection_lost = made.connection_lost

        def leave(exc: Exception | None) -> None:
            live.discard(made)
            connection_lost(exc)

        live.add(made)
        made.connection_lost = leave
        return made

    server = await loop.create_server(protocol, "127.0.0.1", options.port)
    host, port = server.sockets[0].getsockname()
    sys.stdout.write(f"listening on {host}:{port}\n")
    sys.stdout.flush()
    await over.wait()
    server.close()
    await asyncio.sleep(0)  # clients that were accepted are live then
    for each in [*live]:
        each.shut_down()
    for _ in range(50):
        if live:
            await asyncio.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", type=config_from_json, default="{}")
    parser.add_argument("--send-timeout", type=float, default=30.0)
    options = parser.parse_args()
    asyncio.run(serve(options))
    return 1 if options.fault == "status" else 0


if __name__ == "__main__":
    sys.exit(main())
