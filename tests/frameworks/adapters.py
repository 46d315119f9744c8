"""The adapters in this folder: how each is started, how long it is, and what it cannot do."""

import ast
import importlib.util
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import Final

import attrs

_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


@attrs.frozen
class Adapter:
    """A server of `greeter_core`: a module of this folder, with its arguments."""

    framework: str
    module: str
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """What has to be installed."""
    limits: str = attrs.field(default="", kw_only=True)
    """What it cannot do."""

    def __str__(self) -> str:
        return " ".join((self.module, *self.arguments))

    @property
    def command(self) -> tuple[str, ...]:
        """How it is started; the options of `common` can follow."""
        return (sys.executable, "-m", f"tests.frameworks.{self.module}", *self.arguments)

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if not importlib.util.find_spec(name)]

    @property
    def source(self) -> str:
        """The text of the module, which cannot be imported where a package is missing."""
        return _source(self.module)

    @property
    def lines(self) -> str:
        """How many lines of code it has, and those that it has from other modules."""
        more = "".join(
            f" + {lines_of_code(_source(name))} of `{name}`"
            for name in re.findall(r"^from \.(\w+) import", self.source, re.MULTILINE)
            if name != "common"
        )
        return f"{lines_of_code(self.source)}{more}"


ADAPTERS: Final = (
    Adapter("threads, blocking sockets", "threads"),
    Adapter("`socketserver`", "socket_server"),
    Adapter("`selectors`", "selectors_loop"),
    Adapter("asyncio protocol", "asyncio_protocol"),
    Adapter("asyncio protocol on uvloop", "asyncio_protocol", ("--loop", "uvloop"), ("uvloop",)),
    Adapter(
        "asyncio streams",
        "asyncio_streams",
        limits="Stop reading at once when a send is blocked: asyncio reads up to 288 KiB ahead.",
    ),
    Adapter("gevent", "gevent_sockets", (), ("gevent",)),
    Adapter("Twisted", "twisted_protocol", (), ("twisted",)),
    Adapter(
        "anyio streams on asyncio",
        "anyio_streams",
        (),
        ("anyio",),
        limits="Bound its memory: while a send is blocked, it reads on, if the client has sent "
        "without a pause since before it was accepted. "
        "(anyio pauses reading after its first wait.)",
    ),
    Adapter("anyio streams on Trio", "anyio_streams", ("--backend", "trio"), ("anyio",)),
    Adapter("anyio sockets on asyncio", "anyio_sockets", (), ("anyio",)),
    Adapter("anyio sockets on Trio", "anyio_sockets", ("--backend", "trio"), ("anyio",)),
    Adapter("Trio (`greeter_trio`)", "trio_greeter"),
)


def _source(module: str) -> str:
    return Path(__file__).with_name(f"{module}.py").read_text("utf-8")


def table() -> str:
    """Return a table in Markdown."""
    rows = [("framework", "module", "lines", "what it cannot do"), ("---",) * 4]
    rows += [(each.framework, f"`{each}`", each.lines, each.limits) for each in ADAPTERS]
    return "".join(f"| {' | '.join(row)} |".replace("  |", " |") + "\n" for row in rows)


def lines_of_code(source: str) -> int:
    """Count the lines of a module but for blank ones, comments, docstrings and imports."""
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant(str())):
                lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)
