"""Which command was asked for, and what it was asked to do."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from .parser import program, short_line

if TYPE_CHECKING:
    from .client_options import ClientOptions
    from .serve_options import ServeOptions
    from .show_options import DemoOptions, ReplayOptions

    Options: TypeAlias = ServeOptions | ClientOptions | ReplayOptions | DemoOptions

_COMMANDS = {
    "serve": "run the server",
    "client": "talk to a server, test a path to it, or watch it",
    "demo": "show how a conversation over TCP goes; no server has to run",
    "replay": "check and draw a recording",
}


def parse(
    argv: Sequence[str] | None = None,
) -> "Options":
    """Return what was asked, defaults filled in; exit with status 2 where it makes no sense."""
    command, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    # Only the options of this command are imported: a probe is to start quickly.
    match command:
        case "serve":
            from . import serve_options  # noqa: PLC0415 - likewise below

            return serve_options.parse(arguments)
        case "client":
            from . import client_options  # noqa: PLC0415

            return client_options.parse(arguments)
        case "replay":
            from . import show_options  # noqa: PLC0415

            return show_options.parse_replay(arguments)
        case "demo":
            from . import show_options  # noqa: PLC0415

            return show_options.parse_demo(arguments)
        case _:
            return _parse_no_command([command, *arguments] if command else [])


def _parse_no_command(arguments: list[str]) -> NoReturn:
    """Show what the program can do, or say that there is no such command; exit."""
    name = program()
    width = max(map(len, _COMMANDS)) + 2
    commands = "".join(f"  {each:{width}}{what}\n" for each, what in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=name,
        usage=f"{name} COMMAND [OPTION]...",
        description="A TCP greeting service: tell it names, and it greets them.",
        epilog=f"commands:\n{commands}\n"
        "to begin:\n"
        f"  {name} serve            in one terminal\n"
        f"  {name} client           in another one\n"
        f"  {name} COMMAND --help   shows the options of a command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this help, and exit")
    parser.add_argument("--help-all", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and exit")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        what = "the options of a command come after it" if parsed.command in _COMMANDS else ""
        message = f"unrecognized arguments: {' '.join(unknown)}"
        parser.error(short_line(f"{message} ({what})" if what else message))
    if parsed.command is None:
        parser.print_help(sys.stderr)
        sys.exit(2)
    parser.error(short_line(f"COMMAND must be {', '.join(_COMMANDS)}, not {parsed.command!r}"))


class _Version(argparse.Action):
    def __call__(self, *_: object) -> None:
        from greeter_core import __version__  # noqa: PLC0415 - it is rarely asked for

        print(f"greeter {__version__}")
        sys.exit(0)
