"""The sample's documents: docstrings of the installed standard library.

Modules written in Python are parsed and never imported, so their code does not run; a short list of
compiled modules without side effects on import is imported for its `__doc__`s. Imports no Django.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sysconfig
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.records import ImportedDocument

MOST_CHARACTERS = 1200  # per docstring; cut at the end of a paragraph or sentence
FEWEST_WORDS = 3

# Modules and packages to parse; of a package, every module without a leading underscore.
PARSED = """
    abc argparse ast asyncio base64 bdb bisect bz2 cProfile calendar cmd code codecs codeop collections colorsys
    compileall concurrent configparser contextlib copy copyreg csv dataclasses datetime dbm difflib dis doctest email
    enum filecmp fileinput fnmatch fractions ftplib functools getopt getpass gettext glob graphlib gzip hashlib heapq
    hmac html http imaplib importlib inspect ipaddress json keyword linecache locale logging lzma mailbox mimetypes
    modulefinder multiprocessing netrc numbers operator optparse os pathlib pdb pickle pickletools pkgutil platform
    plistlib poplib pprint profile pstats py_compile pyclbr queue quopri random re reprlib runpy sched secrets selectors
    shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable
    sysconfig tabnanny tarfile tempfile textwrap threading timeit token tokenize tomllib trace traceback tracemalloc
    types typing unittest urllib uuid venv warnings wave weakref webbrowser xml xmlrpc zipapp zipfile zoneinfo
""".split()  # noqa: SIM905

# Public modules whose source is in a file of another name; the first existing file of each row counts.
WRITTEN_IN = (
    ("collections.abc", ("_collections_abc.py",)),
    ("datetime", ("_pydatetime.py", "datetime.py")),
    ("decimal", ("_pydecimal.py",)),
    ("os.path", ("posixpath.py",)),
    ("os.path", ("genericpath.py",)),
)

# Packages whose modules are private: `asyncio.tasks.gather` is documented as `asyncio.gather`.
FLATTENED = (
    "asyncio",
    "concurrent.futures",
    "json",
    "pathlib",
    "re",
    "sqlite3",
    "tomllib",
    "unittest",
    "zipfile",
    "zoneinfo",
)

KEPT_APART = ("unittest.mock",)

# Parts of packages that are for another system, generated, or obsolete.
LEFT_OUT = ("asyncio.windows", "asyncio.proactor", "json.tool", "multiprocessing.dummy", "unittest.test")

# Compiled modules, and compiled parts of the modules above. Importing them has no side effects.
EXAMINED = """
    array atexit binascii builtins bz2 cmath codecs collections contextvars csv faulthandler fcntl gc hashlib io
    itertools locale lzma marshal math mmap os pickle pwd queue random re resource select signal socket sqlite3 ssl
    struct sys time tracemalloc unicodedata weakref zlib
""".split()  # noqa: SIM905

COMPILED_MEMBERS = (
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.BuiltinFunctionType,
    staticmethod,
)

# `__module__` values of a module's compiled objects.
ALIASES = {"posix": "os", "nt": "os", "_hashlib": "hashlib", "_sre": "re"}


@dataclass(frozen=True, slots=True)
class Docstring:
    """A cleaned docstring with its qualified name; kind is module, class or function."""

    name: str
    text: str
    kind: str
    module: str


def sample_documents() -> list[ImportedDocument]:
    """Return thousands of documents in name order, without duplicate or trivial texts.

    Every call returns the same; the names differ slightly between Python versions.
    """
    found: dict[str, Docstring] = {}
    for docstring in (*_parsed_docstrings(), *_examined_docstrings()):
        found.setdefault(docstring.name, docstring)
    documents = []
    seen: set[str] = set()
    for name in sorted(found, key=_plainness):
        docstring = found[name]
        if docstring.text in seen or len(docstring.text.split()) < FEWEST_WORDS:
            continue
        seen.add(docstring.text)
        documents.append(
            ImportedDocument(
                id=name,
                text=f"{name} — {docstring.text}",
                metadata={"module": docstring.module, "kind": docstring.kind},
            )
        )
    return sorted(documents, key=lambda document: document.id)


def _plainness(name: str) -> tuple[bool, int, str]:
    """Keep the simplest of several names with the same text: `str.replace`, not `bytes.replace`."""
    return name.startswith(("bytearray", "bytes")), name.count("."), name


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the text, cut after the last paragraph, sentence or word that fits in `most`."""
    if len(text) <= most:
        return text
    head = text[: most + 1]
    for boundary in (r"\n\s*\n", r"[.!?:](?=\s)", r"\s"):
        ends = [match.end() for match in re.finditer(boundary, head) if match.end() >= most // 3]
        if ends:
            return head[: ends[-1]].rstrip()
    return text[:most]


def _docstring(name: str, raw: str | None, kind: str, module: str) -> Iterator[Docstring]:
    if raw:
        yield Docstring(name, shortened(inspect.cleandoc(raw).strip()), kind, module)


# --- parsed ------------------------------------------------------------------------------


def _parsed_docstrings() -> Iterator[Docstring]:
    library = Path(sysconfig.get_path("stdlib"))
    for module, path in _sources(library):
        tree = ast.parse(path.read_bytes())  # bytes, so that the parser finds the declared encoding
        if path.stem in ("__init__", module.split(".")[-1]) or module in dict(WRITTEN_IN):
            yield from _docstring(module, ast.get_docstring(tree), "module", module)
        yield from _definitions(tree.body, prefix=module, module=module)


def _sources(library: Path) -> Iterator[tuple[str, Path]]:
    """Yield (public module name, file), without modules that this Python lacks."""
    for name, files in WRITTEN_IN:
        yield from ((name, path) for path in [library / file for file in files if (library / file).is_file()][:1])
    for name in PARSED:
        if (library / f"{name}.py").is_file():
            if name not in dict(WRITTEN_IN):
                yield name, library / f"{name}.py"
        elif (library / name).is_dir():
            yield from _package_sources(library, library / name)


def _package_sources(library: Path, package: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        inner = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        home = next((flat for flat in FLATTENED if inner == flat or inner.startswith(flat + ".")), None)
        if inner in KEPT_APART:
            home = inner
        if (
            inner.startswith(LEFT_OUT)
            or path.stem == "__main__"
            or (home is None and any(part.startswith("_") for part in inner.split(".")))
        ):
            continue
        yield home or inner, path


def _definitions(body: Iterable[ast.stmt], *, prefix: str, module: str) -> Iterator[Docstring]:
    """Yield public functions and classes with their members, including those in an `if` or a `try`."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _definitions(node.body, prefix=prefix, module=module)
            yield from _definitions(node.orelse, prefix=prefix, module=module)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield from _docstring(name, ast.get_docstring(node), kind, module)
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, prefix=name, module=module)


# --- examined ----------------------------------------------------------------------------


def _examined_docstrings() -> Iterator[Docstring]:
    for name in EXAMINED:
        try:
            module = importlib.import_module(name)
        except ImportError:  # fcntl and others are missing on some systems
            continue
        yield from _docstring(name, module.__doc__, "module", name)
        for attribute in sorted(vars(module)):
            if not attribute.startswith("_"):
                yield from _compiled(vars(module)[attribute], attribute, module=name)


def _compiled(thing: Any, attribute: str, *, module: str) -> Iterator[Docstring]:
    """Yield the docstrings of a compiled function, or of a compiled class and its public members."""
    name = attribute if module == "builtins" else f"{module}.{attribute}"
    home = getattr(thing, "__module__", None) or ""
    if ALIASES.get(home, home.lstrip("_")) != module:
        return
    if isinstance(thing, types.BuiltinFunctionType):
        yield from _docstring(name, thing.__doc__, "function", module)
    elif isinstance(thing, type) and not _written_in_python(thing):
        if module != "builtins":
            name = f"{module}.{thing.__name__}"  # its own name, where the attribute is an alias
        yield from _docstring(name, thing.__doc__, "class", module)
        for member in sorted(vars(thing)):
            if not member.startswith("_") and isinstance(vars(thing)[member], COMPILED_MEMBERS):
                yield from _docstring(f"{name}.{member}", vars(thing)[member].__doc__, "function", module)


def _written_in_python(thing: type) -> bool:
    """Return whether a class comes from source code, which `_parsed_docstrings` reads."""
    return any(isinstance(member, types.FunctionType) for member in vars(thing).values())
