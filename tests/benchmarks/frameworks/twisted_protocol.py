"""A Twisted `Protocol` with a `TimeoutMixin`."""

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import TimeoutMixin

from tests.benchmarks.servers import BACKLOG, HOST, IDLE_TIMEOUT, OPENING, answer


class Greeter(Protocol, TimeoutMixin):
    def __init__(self) -> None:
        self._tail = b""
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        # As its own producer the transport stops reading while its write buffer is full.
        self.transport.registerProducer(self.transport, streaming=True)
        self.setTimeout(IDLE_TIMEOUT)
        self.transport.write(OPENING)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self.resetTimeout()
        reply, self._tail, self._over = answer(self._tail + data)
        if reply:
            self.transport.write(reply)
        if self._over:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: object = None) -> None:  # noqa: ARG002 - Twisted passes it
        self.setTimeout(None)

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()


if __name__ == "__main__":
    reactor.listenTCP(0, Factory.forProtocol(Greeter), backlog=BACKLOG, interface=HOST)
    reactor.run()
