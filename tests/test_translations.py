"""The committed translations: what is compiled is what is written, and annotators' pages are complete in German."""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "locale" / "de" / "LC_MESSAGES"
# What people who compare meet: from signing in to their own answers.
SOURCES = [
    *sorted((ROOT / "labeling" / "templates").rglob("*.html")),
    *(ROOT / "labeling" / f"{name}.py" for name in ("screen", "views", "worked_examples", "own_answers")),
    *(ROOT / "labeling" / f"{name}.py" for name in ("compare_api", "compare_items", "spot_checks", "gold_checks")),
    *(ROOT / "zelo_site" / "templates" / "zelo" / f"{name}.html" for name in ("base", "sign_in", "link", "profile")),
    *(ROOT / "zelo_site" / "templates" / f"{name}.html" for name in ("zelo/projects", "zelo/parts/language", "403", "404")),
    ROOT / "zelo_site" / "accounts.py",
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One message; `texts` holds one text, or one a plural form."""

    msgid: str
    plural: str
    texts: tuple[str, ...]
    fuzzy: bool


def read_po(path: Path) -> list[Entry]:
    """The entries of a .po file, its header first."""
    entries = []
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        fields: dict[str, str] = {}
        current = ""
        for line in block.splitlines():
            if match := re.match(r'(msg\w+(?:\[\d+\])?) (".*")$', line):
                current = match[1]
                fields[current] = ast.literal_eval(match[2])
            elif line.startswith('"') and current:
                fields[current] += ast.literal_eval(line)
        if "msgid" in fields:
            texts = tuple(text for name, text in sorted(fields.items()) if name.startswith("msgstr"))
            entries.append(
                Entry(fields["msgid"], fields.get("msgid_plural", ""), texts, "fuzzy" in block.split("msgid")[0])
            )
    return entries


def read_mo(path: Path) -> dict[str, str]:
    """Original to translation, plural forms joined by NUL, as a compiled catalogue holds them."""
    content = path.read_bytes()
    magic, _, count, originals, translations = struct.unpack("<5I", content[:20])
    assert magic == 0x950412DE

    def text(table: int, at: int) -> str:
        length, offset = struct.unpack("<2I", content[table + 8 * at : table + 8 * at + 8])
        return content[offset : offset + length].decode()

    return {text(originals, at): text(translations, at) for at in range(count)}


@pytest.fixture(scope="module")
def written() -> list[Entry]:
    return read_po(LOCALE / "django.po")


def test_compiled_catalogue_is_the_written_one(written: list[Entry]) -> None:
    expected = {
        f"{each.msgid}\0{each.plural}" if each.plural else each.msgid: "\0".join(each.texts)
        for each in written
        if any(each.texts) and not each.fuzzy
    }
    assert read_mo(LOCALE / "django.mo") == expected, "compile again: msgfmt -o django.mo django.po"


def test_nothing_is_fuzzy(written: list[Entry]) -> None:
    assert [each.msgid for each in written if each.msgid and each.fuzzy] == []


def msgids_of(path: Path) -> set[str]:
    """The texts that a source marks for translation."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        marked = set(re.findall(r'{%\s*translate "((?:[^"\\]|\\.)*)"', source))
        for body in re.findall(
            r"{%\s*blocktranslate[^%]*%}(.*?){%\s*(?:plural|endblocktranslate)\s*%}", source, re.DOTALL
        ):
            marked.add(re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", body))
        return marked
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id in {"_", "gettext"})
    return {ast.literal_eval(call.args[0]) for call in named}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_of_annotators_are_complete_in_german(path: Path, written: list[Entry]) -> None:
    translated = {each.msgid for each in written if all(each.texts)}
    assert msgids_of(path) - translated == set()


def test_sources_of_annotators_mark_their_texts() -> None:
    assert len(set().union(*(msgids_of(path) for path in SOURCES))) > 150


def test_placeholders_survive_translation(written: list[Entry]) -> None:
    placeholder = re.compile(r"{\w+}|%\(\w+\)[sd]")
    for each in written[1:]:
        for text in filter(None, each.texts):
            assert set(placeholder.findall(text)) == set(placeholder.findall(each.msgid)) or each.plural, each.msgid
