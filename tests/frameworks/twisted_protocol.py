"""A Twisted `Protocol`, half-closeable, which is a pull producer for its transport."""

from argparse import Namespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from .common import BACKLOG, READ_SIZE, Conversation, announce, parser


@implementer(IHalfCloseableProtocol, IPullProducer)
class Greeter(Protocol):
    """One conversation."""

    _timer: Any = None

    def __init__(self, options: Namespace, live: "dict[Greeter, Deferred]") -> None:
        self._options, self._live = options, live

    def connectionMade(self) -> None:
        self._live[self] = Deferred()
        self.transport.setTcpNoDelay(True)
        self.transport.bufferSize = READ_SIZE  # of one read
        sock, now = self.transport.getHandle(), reactor.seconds()
        self._conversation = Conversation(self._options.config, sock, now)
        # Twisted calls resumeProducing now, and whenever all that was written is sent.
        self.transport.registerProducer(self, streaming=False)

    def dataReceived(self, data: bytes) -> None:
        self._give(data)

    def readConnectionLost(self) -> None:
        self._give(b"")

    def writeConnectionLost(self) -> None:
        """Do nothing: this end has asked for it."""

    def stopProducing(self) -> None:
        """Do nothing: the connection is lost, as the next call says."""

    def connectionLost(self, reason: object = None) -> None:  # noqa: ARG002 - it does not matter
        self._conversation.lose()
        self.resumeProducing()
        self._live.pop(self).callback(None)

    def resumeProducing(self) -> None:
        """Send; when everything is sent, wait for the next input."""
        conversation, transport = self._conversation, self.transport
        if self._timer and self._timer.active():
            self._timer.cancel()
        data = conversation.data_to_send()
        self._sending = bool(data)
        if data:
            transport.pauseProducing()
            transport.write(data)
            wait = self._options.send_timeout
            self._timer = reactor.callLater(wait, transport.abortConnection)  # which resets it
            return
        transport.resumeProducing()
        if conversation.eof_to_send():
            transport.unregisterProducer()
            transport.loseWriteConnection()
        if conversation.finished:
            transport.loseConnection()
        else:
            self._timer = reactor.callLater(conversation.timeout(reactor.seconds()), self._look, 1)

    def shut_down(self) -> None:
        """End the conversation in good order, when what has arrived is answered."""
        self._conversation.shut_down()
        if not self._sending:
            self.resumeProducing()

    def _give(self, data: bytes | None) -> None:
        self._conversation.give(data, reactor.seconds())
        self.resumeProducing()

    def _look(self, turns: int) -> None:
        """Tell the time, unless something can be read: the reactor finds that in one turn (T3)."""
        if turns:
            self._timer = reactor.callLater(0, self._look, turns - 1)
        else:
            self._give(None)


def main(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    live: dict[Greeter, Deferred] = {}
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda _: Greeter(options, live)
    port = reactor.listenTCP(options.port, factory, backlog=BACKLOG, interface=options.host)
    announce(options.host, port.getHost().port)

    def shut_down() -> Deferred:
        port.stopListening()
        closed = DeferredList([*live.values()])
        for each in [*live]:
            each.shut_down()
        return closed

    reactor.addSystemEventTrigger("before", "shutdown", shut_down)
    reactor.run()


if __name__ == "__main__":
    main(parser().parse_args())
