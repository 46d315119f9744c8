"""A Twisted `LineOnlyReceiver` with a `TimeoutMixin`."""

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin

from tests.benchmarks.servers import BACKLOG, HOST, IDLE_TIMEOUT, OPENING, answer


class Greeter(LineOnlyReceiver, TimeoutMixin):
    delimiter = b"\n"

    def connectionMade(self) -> None:
        self._over = False
        self.transport.setTcpNoDelay(True)
        # As its own producer the transport stops reading while its write buffer is full.
        self.transport.registerProducer(self.transport, streaming=True)
        self.setTimeout(IDLE_TIMEOUT)
        self.transport.write(OPENING)

    def lineReceived(self, line: bytes) -> None:
        if self._over:
            return
        self.resetTimeout()
        reply, _, self._over = answer(line + self.delimiter)
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
