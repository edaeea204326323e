"""The shape of the source tree: modules a folder, and circles of imports. `python -m tests.tree` prints both.

Every import counts, inside functions and under TYPE_CHECKING too: a reader follows those as well.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("labeling", "scoring", "trainer", "workers", "zelo_site")
MOST_MODULES = 14  # beside __init__.py; more means that a feature wants a folder of its own


def sources(*packages: str) -> Iterator[Path]:
    """The Python files of some packages, without migrations."""
    for package in packages:
        yield from (path for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts)


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, for reading only."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_a_folder(*packages: str) -> Counter[str]:
    """How many modules lie in each folder beside its `__init__`."""
    paths = [path for path in sources(*packages) if path.name != "__init__.py"]
    return Counter(path.parent.relative_to(ROOT).as_posix() for path in paths)


def imports(*packages: str) -> dict[str, set[str]]:
    """The modules that each module imports, among the modules of `packages`."""
    trees = {module_name(path): parsed(path) for path in sources(*packages)}
    return {name: set(_imported(tree, trees.keys() - {name})) for name, tree in trees.items()}


def _imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name for name in inner.values() if name in known)
            if node.module in known and not all(name in known for name in inner.values()):
                yield node.module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, in a circle; Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1 or name in graph[name]:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def main() -> int:
    counts = modules_a_folder(*PACKAGES)
    for folder, count in sorted(counts.items()):
        print(f"{count:4d}  {folder}{'  <- too many' if count > MOST_MODULES else ''}")
    groups = circles(imports(*PACKAGES))
    for group in groups:
        print("circle: " + " <-> ".join(group))
    print(f"{len(counts)} folders, at most {max(counts.values())} modules; {len(groups)} circles of imports")
    return int(bool(groups) or max(counts.values()) > MOST_MODULES)


if __name__ == "__main__":
    sys.exit(main())
