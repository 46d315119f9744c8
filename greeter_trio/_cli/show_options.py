"""The options of `replay` and `demo`, as frozen objects."""

from collections.abc import Callable, Sequence
from functools import partial

import attrs

from .parser import Parser, file_name, whole_number


@attrs.frozen(kw_only=True)
class ReplayOptions:
    """What `replay` was asked to do."""

    file: str
    trace: bool
    page: str | None

    def command(self) -> Callable[[], int]:
        """Return what does it, and returns the exit status."""
        from .replay import run_replay  # noqa: PLC0415 - when its options are right

        return partial(run_replay, self)


@attrs.frozen(kw_only=True)
class DemoOptions:
    """What `demo` was asked to do."""

    clients: int
    segments: bool
    record: str | None
    page: str | None
    pcap: str | None

    def command(self) -> Callable[[], int]:
        """Return what does it, and returns the exit status."""
        from .demo import run_demo  # noqa: PLC0415 - when its options are right

        return partial(run_demo, self)


_REPLAY = """\
Give the inputs of a recording to new connections, and compare what comes of
them with what was recorded: outputs, events, deadlines and states."""

_REPLAY_EPILOG = """\
exit status:
  0    everything comes out as it was recorded
  1    something does not, which is shown; or a file cannot be used
  2    wrong usage, or FILE is damaged
  130  interrupted by Ctrl-C (128 + N: ended by signal N)

examples:
  %(prog)s greeter.jsonl
  %(prog)s --trace greeter.jsonl | less
  %(prog)s --page greeter.html greeter.jsonl
"""

_DEMO = """\
Show how a conversation over TCP begins, goes on and ends: a server and its
clients, in this process and over the loopback interface, in three scenes. No
server has to run, and no privilege is needed."""

_DEMO_EPILOG = """\
The segments of TCP are those that the kernel really sends. Capturing them
takes Linux, and a privilege (CAP_NET_RAW) or user namespaces. Without these it
says so, and draws what TCP's rules let expect instead.

exit status:
  0    done
  1    failed: a file cannot be written
  2    wrong usage
  130  interrupted by Ctrl-C (128 + N: ended by signal N)
"""


def parse_replay(arguments: Sequence[str]) -> ReplayOptions:
    """Return what was asked; exit with status 2 where it makes no sense."""
    parser = _replay_parser()
    parsed = parser.parse_args(arguments)
    parser.want_distinct(parsed, ["--page"], ["FILE"])
    return ReplayOptions(file=parsed.file, trace=parsed.trace, page=parsed.page)


def parse_demo(arguments: Sequence[str]) -> DemoOptions:
    """Return what was asked; exit with status 2 where it makes no sense."""
    parser = _demo_parser()
    parsed = parser.parse_args(arguments)
    if parsed.no_segments and parsed.pcap is not None:
        parser.error("--pcap needs the segments: leave out --no-segments")
    parser.want_distinct(parsed, ["--record", "--page", "--pcap"])
    return DemoOptions(
        clients=parsed.clients,
        segments=not parsed.no_segments,
        record=parsed.record,
        page=parsed.page,
        pcap=parsed.pcap,
    )


def _replay_parser(everything: bool = False) -> Parser:  # noqa: FBT001, FBT002 - see Parser.helps
    parser = Parser(
        "replay", " FILE", everything=everything, description=_REPLAY, epilog=_REPLAY_EPILOG
    )
    parser.option(
        "file",
        common=True,
        type=file_name,
        metavar="FILE",
        help="a transcript, as --record writes it",
    )
    parser.trace("on standard output")
    parser.page()
    parser.helps(_replay_parser)
    return parser


def _demo_parser(everything: bool = False) -> Parser:  # noqa: FBT001, FBT002 - see Parser.helps
    parser = Parser("demo", "", everything=everything, description=_DEMO, epilog=_DEMO_EPILOG)
    parser.option(
        "--clients",
        common=True,
        type=partial(whole_number, "a number of clients", 1, 20),
        default=3,
        metavar="N",
        help="how many clients come at once in the second scene, 1 to 20 (default: 3)",
    )
    parser.option(
        "--no-segments",
        common=True,
        action="store_true",
        help="do not capture the segments of TCP, and change no namespace for that",
    )
    parser.record(common=True)
    parser.page()
    parser.option(
        "--pcap",
        common=True,
        type=file_name,
        metavar="FILE",
        help="write the segments to FILE, for Wireshark and tcpdump",
    )
    parser.helps(_demo_parser)
    return parser
