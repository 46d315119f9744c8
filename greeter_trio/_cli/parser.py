"""What the commands' options have in common: how they are written, checked and shown."""

import argparse
import contextlib
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from greeter_core import ClientConfig, Framing, ServerConfig
from greeter_trio import Limits
from greeter_trio._net.endpoints import Endpoint, parse_endpoint, parse_port
from greeter_trio._net.text import shown

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "6000"

ENVIRONMENT = """\
environment:
  GREETER_HOST, GREETER_PORT   instead of the defaults of --host and --port
"""

_LONGEST = 1000  # characters of a message
# What `float` takes besides, such as `1_0`, spaces and the digits of other scripts, is a mistake.
_NUMBER = re.compile(r"-?(?=\.?[0-9])[0-9]*\.?[0-9]*(?:e[+-]?[0-9]+)?|inf")

Arguments: TypeAlias = argparse.Namespace
Settings: TypeAlias = Callable[..., ServerConfig | ClientConfig | Limits]


def program() -> str:
    """Return what this program was called: `greeter`, or Python with the package."""
    return "python -m greeter_trio" if sys.argv[0].endswith("__main__.py") else "greeter"


class Parser(argparse.ArgumentParser):
    """The options of one command.

    There are two of them: one whose help shows what most people need, for parsing and for --help,
    and one that has everything, under headings, for --help-all.
    """

    def __init__(self, command: str, operands: str, *, everything: bool, **texts: str) -> None:
        name = f"{program()} {command}"
        super().__init__(
            prog=name,
            usage=f"{name} [OPTION]...{operands}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
            **texts,  # type: ignore[arg-type]  # the description, and what comes after the options
        )
        self._everything = everything
        # `-4` looks like a number to argparse, and so any negative number would be an option to it.
        self._has_negative_number_optionals: list[bool] = []
        self._group: argparse._ArgumentGroup | Parser = self

    def heading(self, title: str) -> None:
        """Have the options that follow stand under this heading, where everything is shown."""
        if self._everything:
            self._group = self.add_argument_group(title)

    def option(
        self,
        *names: str,
        help: str,  # noqa: A002 - as argparse has it
        common: bool = False,
        **how: Any,  # noqa: ANN401 - likewise
    ) -> None:
        """Add an option; one that is not `common` is left out of --help."""
        is_shown = common or self._everything
        self._group.add_argument(*names, help=help if is_shown else argparse.SUPPRESS, **how)
        self._has_negative_number_optionals.clear()

    def choice(self, name: str, *values: str, help: str, default: str | None = None) -> None:  # noqa: A002 - likewise
        """Add an option that has one of these values."""
        kind = partial(_one_of, values)
        metavar = "|".join(values)
        self.option(name, type=kind, default=default, metavar=metavar, help=help)

    def number(
        self,
        name: str,
        settings: Settings,
        meaning: str,
        *,
        field: str = "",
        common: bool = False,
    ) -> None:
        """Add an option for a number that a field of the settings keeps, by default its own."""
        field = field or name.removeprefix("--").replace("-", "_")
        default = getattr(settings(), field)
        try:
            settings(**{field: math.inf})
            forever = "; inf for no limit"
        except ValueError:
            forever = ""
        self.option(
            name,
            common=common,
            type=partial(number_for, settings, field),
            default=default,
            metavar="N" if isinstance(default, int) else "SECONDS",
            help=f"{meaning}{forever} (default: {default:g})",
        )

    def framing(self) -> None:
        """Add --framing."""
        self.choice(
            "--framing",
            *[framing.value for framing in Framing],
            default=Framing.AUTO.value,
            help="how names end: with LF, with the packet (raw), or as the first one shows "
            "(default: auto)",
        )

    def trace(self, where: str) -> None:
        """Add --trace."""
        self.option(
            "--trace",
            action="store_true",
            common=True,
            help=f"draw the conversation as a sequence diagram, {where}",
        )

    def record(self, *, common: bool = False) -> None:
        """Add --record."""
        self.option(
            "--record",
            common=common,
            type=file_name,
            metavar="FILE",
            help="write a transcript to FILE, which `replay` reads",
        )

    def page(self) -> None:
        """Add --page."""
        self.option(
            "--page",
            type=file_name,
            metavar="FILE.html",
            common=True,
            help="draw the conversations as a page for a browser",
        )

    def helps(self, build: Callable[[bool], "Parser"]) -> None:
        """Add --help and --help-all; `build(True)` makes the parser that has everything."""

        class HelpAll(argparse.Action):
            def __call__(self, *_: object) -> None:
                build(True).print_help()  # noqa: FBT003 - it has one parameter
                sys.exit(0)

        self._group = self
        self.option("-h", "--help", action="help", common=True, help="show this help, and exit")
        self.option(
            "--help-all", nargs=0, action=HelpAll, common=True, help="show all options, and exit"
        )

    # Checks of what only makes sense together

    def want(self, arguments: Arguments, wanted: str, *options: str) -> None:
        """Exit if one of these was given: it makes no sense without the one that is wanted."""
        for option in options:
            if _value(arguments, option) is not None:
                self.error(f"{option} needs {wanted}")

    def want_distinct(
        self, arguments: Arguments, written: Sequence[str], read: Sequence[str] = ()
    ) -> None:
        """Exit if a file that is to be written is another one of these, which it would spoil."""
        given = [
            (name, path)
            for name in (*written, *read)
            if (path := _value(arguments, name)) is not None
        ]
        for (name, path), (other, other_path) in itertools.combinations(given, 2):
            same = os.path.realpath(path) == os.path.realpath(other_path)
            with contextlib.suppress(OSError):  # one of them does not exist
                same = same or Path(path).samefile(other_path)
            if same and name in written:
                self.error(f"{name} and {other} are the same file: {shown(path)}")

    def port(self, arguments: Arguments, lowest: int) -> int:
        """Return the port that was given, or that the environment has, or the default one."""
        port, source = arguments.port, "--port"
        if port is None and os.environ.get("GREETER_PORT"):
            port, source = os.environ["GREETER_PORT"], "GREETER_PORT"
        try:
            return parse_port(DEFAULT_PORT if port is None else port, source, lowest)
        except ValueError as exc:
            self.error(str(exc))

    def host(self, arguments: Arguments) -> tuple[str, str]:
        """Return the host in the same way, and what has named it: the option or the variable."""
        if arguments.host is not None:
            if not arguments.host:
                self.error("--host must not be empty")
            return arguments.host, "--host"
        return os.environ.get("GREETER_HOST") or DEFAULT_HOST, "GREETER_HOST"

    def refuse_star(self, host: str, source: str) -> None:
        """Exit for `*`, which some resolvers take for every address, or for this machine."""
        if host == "*":
            self.error(
                f"{source} must not be '*': all addresses of this machine, for a server, are "
                "0.0.0.0 (IPv4) or :: (IPv6)"
            )

    def error(self, message: str) -> NoReturn:
        """Print how the command is used, and this message in one line, and exit with status 2."""
        if sys.stderr is None:  # argparse would print the usage to standard output
            sys.exit(2)
        super().error(short_line(message))


def short_line(message: str) -> str:
    """Return a message in one line, which is not as long as what somebody has pasted."""
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 200]} ... {message[-200:]}"
    if message.isprintable():
        return message
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)


def _value(arguments: Arguments, option: str) -> Any:  # noqa: ANN401 - of any type
    return getattr(arguments, option.lstrip("-").replace("-", "_").lower())


def _one_of(values: Sequence[str], text: str) -> str:
    if text not in values:
        right = f"{', '.join(values[:-1])} or {values[-1]}"
        raise argparse.ArgumentTypeError(f"must be {right}, not {text!r}")
    return text


def number_for(settings: Settings, field: str, text: str) -> float:
    """Return the number that is written here, if the settings accept it for that field."""
    number: float | str = text  # which the settings refuse, and say what is right
    if re.fullmatch("[0-9]{1,9}", text):
        number = int(text)
    elif _NUMBER.fullmatch(text) and (text == "inf" or math.isfinite(float(text))):
        number = float(text)
    try:
        settings(**{field: number})
    except ValueError as exc:
        right = str(exc).removeprefix(f"{field} ").partition(", not ")[0].replace("math.inf", "inf")
        raise argparse.ArgumentTypeError(f"{right}, not {text!r}") from None
    assert not isinstance(number, str)  # noqa: S101 - no field of theirs takes one
    return number


def whole_number(what: str, lowest: int, highest: int, text: str) -> int:
    """Return the whole number that is written here, if it is in this range."""
    if re.fullmatch("[0-9]{1,9}", text) and lowest <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be {what} from {lowest} to {highest}, not {text!r}")


def file_name(text: str) -> str:
    """Return the name of a file, which is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file, not ''")
    return text


def endpoint(text: str) -> Endpoint:
    """Return the endpoint that is written here."""
    try:
        return parse_endpoint(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
