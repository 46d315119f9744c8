"""Small changes of the product code, each of which a test should notice."""

import ast
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

OPERATOR: Final = re.compile(rb"#|[<>=!]=|[<>+-]|\b(is\s+not|not\s+in|is|in|and|or|not)\b")
ONE: Final = (b"<", b">", b"==", b"is", b"in", b"+", b"and", b"not")
OTHER: Final = (b"<=", b">=", b"!=", b"is not", b"not in", b"-", b"or", b"")
SWAPPED: Final = dict(zip(ONE + OTHER, OTHER + ONE, strict=True))
LEFT_OUT: Final = ("debug", "info", "warning", "error", "exception", "log", "platform")
# The tests run on one platform; a condition with ":=" also binds a name.
LEFT_ALONE: Final = re.compile("platform|TYPE_CHECKING|:=")


class Mutant(NamedTuple):
    """A changed file; `title` tells a person. What is before `place` tells it in any checkout."""

    package: str
    module: str  # the last part of its dotted name, which a move to a folder keeps
    function: str
    line: str  # with single spaces; several lines are joined
    replacement: str
    nth: int  # among equal ones
    place: str  # path:line
    text: bytes = b""

    def title(self) -> str:
        return f"{self.place} {self.function}: {self.line}  ->  {self.replacement}"


def _walk(node: ast.AST, scope: str = "") -> Iterator[tuple[str, Any, str | None]]:  # noqa: C901, PLR0912
    """Yield function, node and new text; None stands for swapping the node's operators."""
    inside = list(ast.iter_child_nodes(node))
    match node:
        case ast.Raise() | ast.Assert() | ast.arg() | ast.FunctionDef("__repr__"):
            return
        case ast.JoinedStr() | ast.Assign([ast.Name("msg" | "__slots__")]):
            return  # f-strings: Python 3.11 has wrong positions inside them
        case ast.Call(left) | ast.Compare(left) if getattr(left, "attr", "") in LEFT_OUT:
            return
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            scope = f"{scope}.{name}".lstrip(".")
            inside = [child for child in inside if isinstance(child, ast.arguments | ast.stmt)]
        case ast.AnnAssign(target, _, value):
            inside = [value] if value else []
            if value and isinstance(target, ast.Attribute):
                yield scope, node, "pass"
        case ast.AugAssign():
            yield from ((scope, node, None), (scope, node, "pass"))
        case ast.Expr(ast.Call() | ast.Await(ast.Call())) | ast.Assign([ast.Attribute()]):
            yield scope, node, "pass"
        case ast.Return(ast.expr()) if ast.unparse(node) != "return None":
            yield scope, node, "return None"
        case ast.Break() | ast.Continue():
            yield scope, node, "continue" if isinstance(node, ast.Break) else "break"
        case ast.Compare() | ast.BoolOp() | ast.BinOp() | ast.UnaryOp(ast.Not()):
            yield scope, node, None
        case ast.Constant(bool() | int() | float() as number):
            yield scope, node, str(not number if isinstance(number, bool) else number + 1)
        case ast.If(test) | ast.IfExp(test) | ast.comprehension(ifs=[test, *_]):
            if not LEFT_ALONE.search(ast.unparse(test)):
                yield from ((scope, test, "True"), (scope, test, "False"))
    for child in inside:
        match node, child:
            case ast.Compare() | ast.Return() | ast.MatchValue(), ast.Constant(str() | bytes()):
                text = repr(child.value)
                yield scope, child, f"{text[:-1]}?{text[-1]}"
        yield from _walk(child, scope)


def _spans(text: bytes) -> Iterator[tuple[str, int, int, bytes]]:
    """Yield function, start, end and new text of each change of a file."""
    lines = [0, *(match.end() for match in re.finditer(b"\n", text))]
    for function, node, new in _walk(ast.parse(text)):
        parts = [node, *(part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))]
        starts = [lines[part.lineno - 1] + part.col_offset for part in parts]
        ends = [lines[part.end_lineno - 1] + part.end_col_offset for part in parts]
        if new is not None:
            yield function, starts[0], ends[0], new.encode()
            continue
        gaps = [(starts[0], starts[1]), *zip(ends[1:], starts[2:], strict=False)]
        for gap in gaps if isinstance(node, ast.UnaryOp) else gaps[1:]:
            match = OPERATOR.search(text, *gap)
            if match and (swapped := SWAPPED.get(b" ".join(match.group().split()))) is not None:
                yield function, *match.span(), swapped


def find(root: Path) -> Iterator[Mutant]:
    """Find all mutants of a checkout's product code."""
    for file in sorted(f for p in ("core", "trio") for f in root.glob(f"greeter_{p}/**/*.py")):
        text, path, seen = file.read_bytes(), file.relative_to(root), Counter[tuple[str, ...]]()
        module = path.parts[-2] if path.stem == "__init__" else path.stem
        for function, start, end, new in _spans(text):
            mutated = text[:start] + new + text[end:]
            first, rest = text.rfind(b"\n", 0, start) + 1, text.find(b"\n", end) - len(text)
            line, replacement = (" ".join(t[first:rest].decode().split()) for t in (text, mutated))
            what = (path.parts[0], module, function, line, replacement)
            yield Mutant(*what, seen[what], f"{path}:{text[:start].count(10) + 1}", mutated)
            seen[what] += 1


def draw(mutants: Iterable[Mutant], number: int, seed: int) -> Iterator[Mutant]:
    """Draw lines, half of them from the core and half from the adapter, and a mutant of each."""
    chance, mutants = random.Random(seed), list(mutants)
    for package, half in (("greeter_core", number // 2), ("greeter_trio", -(-number // 2))):
        lines: dict[str, list[Mutant]] = {}
        for mutant in (mutant for mutant in mutants if mutant.package == package):
            lines.setdefault(mutant.place, []).append(mutant)
        for place in chance.sample(list(lines), min(half, len(lines))):
            yield chance.choice(lines[place])
