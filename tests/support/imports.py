"""What the modules of a package import, read from their text."""

import ast
from collections.abc import Iterator
from pathlib import Path


def modules_of(folder: Path) -> dict[str, Path]:
    """Return the modules of a package, by dotted names: `pkg`, `pkg.sub`, `pkg.sub.module`."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(folder: Path) -> dict[str, set[str]]:
    """Return what each module of a package imports, as absolute dotted names of modules.

    `from a import b` is `a.b` where that is a module beside or in this package, and `a` otherwise.
    Imports count wherever they stand: in functions, and under TYPE_CHECKING, too.
    """
    return {
        module: {name for node in ast.walk(_tree(path)) for name in _names(node, path, folder)}
        for module, path in modules_of(folder).items()
    }


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _names(node: ast.AST, path: Path, folder: Path) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=source, names=names, level=level):
            start = ""
            if level:  # one dot is the folder of the module, and each further one the folder above
                start = ".".join(path.parents[level - 1].relative_to(folder.parent).parts)
            absolute = ".".join(filter(None, [start, source]))
            for alias in names:
                place = folder.parent.joinpath(*absolute.split("."), alias.name)
                is_module = place.is_dir() or place.with_suffix(".py").exists()
                yield f"{absolute}.{alias.name}" if is_module else absolute
