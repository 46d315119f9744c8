"""Play a script against a server, and see whether it says each word, in time, and no other."""

import contextlib
import math

import attrs
import trio

from .peer import EARLY, Fault, Peer, TooLateError, connected
from .playing import MARGIN, Act, Script, Turn
from .targets import Server

_SLACK = MARGIN / 2  # seconds that the client may be late
_PROBE = 0.02  # seconds between two looks at whether the server has closed


async def play(script: Script, server: Server, *, tolerance: float) -> None:
    """Have the conversation of this script; each word may be so many seconds late.

    Raises `Fault` if the server does not conform, and `TooLateError` if this process or the server
    was so late that the rest of the script would mean nothing.
    """
    began = trio.current_time()
    async with connected(server.address) as peer:
        player = _Player(peer, server, tolerance, began)
        for turn in script.turns:
            await player.take(turn)


@attrs.define
class _Player:
    peer: Peer
    server: Server
    tolerance: float
    began: float
    """When the client began to connect: the server has not opened its side before this."""
    opened: float = math.nan
    """When the client was welcomed: the server had opened its side by then."""
    stream_ended: bool = False

    async def take(self, turn: Turn) -> None:
        """Do what the client does, when it is time, and hear what the server says then."""
        if turn.act is Act.CONNECT:
            self.opened = await self.peer.hear(turn.says, by=self.began + self.tolerance)
            self._check_punctual(self.began)
            return
        if turn.act is not Act.WAIT:
            await self._pass_time(self.opened + turn.at)
            await self._act(turn)
            self._check_punctual(self.opened + turn.at)
        since, by = self.began + turn.at, self.opened + turn.at + self.tolerance
        if turn.closes:
            await self._see_closing(since, by)
        await self.peer.hear(turn.says, since=since, by=by)
        if turn.ends:
            await self.peer.hear_end(by=by)
            self.stream_ended = True

    def _check_punctual(self, due: float) -> None:
        late = trio.current_time() - due
        if late > _SLACK:
            raise TooLateError(f"the next step could only be made {late:.3f} s too late")

    async def _pass_time(self, until: float) -> None:
        if self.stream_ended:
            await trio.sleep_until(until)
        else:
            await self.peer.hear_nothing(until)

    async def _act(self, turn: Turn) -> None:
        match turn.act:
            case Act.SEND:
                await self.peer.say(turn.data)
            case Act.END:
                self.peer.end()
            case Act.RESET:
                self.peer.reset()
            case Act.SHUT_DOWN:
                assert self.server.process
                self.server.process.shut_down()

    async def _see_closing(self, since: float, by: float) -> None:
        """See the server close after it has ended its stream: then what is sent is refused.

        Before that it discards what is sent, which prolongs nothing (S8.2, S8.3).
        """
        await self._pass_time(since - MARGIN)
        with contextlib.suppress(ConnectionError):
            while trio.current_time() < by:
                await self.peer.say(b"\n")
                await trio.sleep(_PROBE)
            raise Fault("that the server closes when linger is over", "nothing in time")
        early = since - trio.current_time()
        if early > EARLY:
            raise Fault("that the server lingers", f"a reset {early:.3f} s too early")
