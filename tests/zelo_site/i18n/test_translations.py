"""The committed translations: complete in German, compiled as written, and no text that people see is left unmarked."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.utils import translation

from labeling.models import Project
from labeling.wording import translated
from workers.budgets.limits import SPENT, THE_BUDGET
from workers.models import Run
from zelo_site.i18n.declared_texts import declared_texts

ROOT = Path(__file__).resolve().parents[3]
LOCALE = ROOT / "locale" / "de" / "LC_MESSAGES"
PACKAGES = ("labeling", "scoring", "trainer", "workers", "zelo_site")
TEMPLATES = sorted(path for package in PACKAGES for path in (ROOT / package).glob("templates/**/*.html"))
CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = {"_": 0, "gettext": 0, "gettext_lazy": 0, "gettext_noop": 0, "ngettext": 0, "pgettext": 1}


@dataclass(frozen=True)
class Entry:
    """One message; `texts` holds one text, or one a plural form."""

    context: str
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
                Entry(
                    fields.get("msgctxt", ""),
                    fields["msgid"],
                    fields.get("msgid_plural", ""),
                    texts,
                    "fuzzy" in block.split("msgid")[0],
                )
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
        (each.context and f"{each.context}\4")
        + (f"{each.msgid}\0{each.plural}" if each.plural else each.msgid): "\0".join(each.texts)
        for each in written
        if any(each.texts) and not each.fuzzy
    }
    assert read_mo(LOCALE / "django.mo") == expected, "compile again: msgfmt -o django.mo django.po"


def test_nothing_is_fuzzy(written: list[Entry]) -> None:
    assert [each.msgid for each in written if each.msgid and each.fuzzy] == []


def test_everything_is_translated(written: list[Entry]) -> None:
    assert [each.msgid for each in written if not all(each.texts)] == []


def msgids_of(path: Path) -> set[str]:
    """The texts that a source marks for translation."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        found = re.findall(r"""{%\s*translate (?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""", source)
        marked = {(double or single).replace("%", "%%") for double, single in found}
        for trimmed, body in re.findall(
            r"{%\s*blocktranslate( trimmed)?[^%]*%}(.*?){%\s*(?:plural|endblocktranslate)\s*%}", source, re.DOTALL
        ):
            text = re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", body.replace("%", "%%"))
            marked.add(re.sub(r"\s*\n\s*", " ", text.strip()) if trimmed else text)
        return marked
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id in NAMES)
    texts = (call.args[NAMES[call.func.id]] for call in named)  # type: ignore[attr-defined]
    return {str(text.value) for text in texts if isinstance(text, ast.Constant)}


def test_catalogue_holds_what_sources_mark(written: list[Entry]) -> None:
    marked = set().union(*(msgids_of(path) for path in [*TEMPLATES, *CODE]))
    known = {each.msgid for each in written}
    assert len(marked) > 800
    assert marked - known == set(), "run: manage.py makemessages"


def test_catalogue_holds_what_plugins_states_and_stored_sentences_declare(written: list[Entry]) -> None:
    assert set(declared_texts()) - {each.msgid for each in written} == set(), "run: manage.py makemessages"


def test_placeholders_survive_translation(written: list[Entry]) -> None:
    placeholder = re.compile(r"{\w+}|%\(\w+\)[sdr]")
    for each in written[1:]:
        for text in filter(None, each.texts):
            assert set(placeholder.findall(text)) == set(placeholder.findall(each.msgid)) or each.plural, each.msgid


# --- unmarked texts ----------------------------------------------------------------------

# Names, measures and units that are the same in every language.
ANY_LANGUAGE = {"zelo", "lo", "Elo", "NDCG", "Recall", "MRR", "ECE", "SHA", "GPU", "MiB", "CSV", "JSONL"}
CODE_ELEMENTS = {"code", "kbd", "script", "style"}
READ_ALOUD = {"aria-label", "title", "placeholder", "alt"}


class Texts(HTMLParser):
    """Collects what a reader or a screen reader meets, outside of code."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in CODE_ELEMENTS
        self.found += [value for name, value in attrs if name in READ_ALOUD and value and not value.startswith('{"')]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in CODE_ELEMENTS

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.found.append(data)


def unmarked(template: str) -> Iterator[str]:
    """Texts of a template that stand outside of translate and blocktranslate."""
    template = re.sub(r"{%\s*blocktranslate.*?endblocktranslate\s*%}", "", template, flags=re.DOTALL)
    template = re.sub(r"{%\s*comment\s*%}.*?{%\s*endcomment\s*%}", "", template, flags=re.DOTALL)
    template = re.sub(r"{% block (?:shape|bodyclass) %}.*?{% endblock %}", "", template)  # classes of the page
    parser = Texts()
    parser.feed(re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", template, flags=re.DOTALL))
    for text in parser.found:
        if set(re.findall(r"[^\W\d_]{2,}", text)) - ANY_LANGUAGE:
            yield text.strip()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_templates_mark_their_texts(path: Path) -> None:
    assert list(unmarked(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>Hello</p>", ["Hello"]),
        ("<p>{% if x %}{{ n }} pairs{% endif %}</p>", ["pairs"]),
        ('<input placeholder="Search {{ what }}">', ["Search"]),
        (
            '<nav aria-label="{% translate "Pages" %}">{% blocktranslate %}{{ n }} pairs{% endblocktranslate %}</nav>',
            [],
        ),
        ("<p>Elo {{ elo }} <code>manage.py doctor</code></p>", []),
    ],
)
def test_unmarked_texts_are_found(template: str, found: list[str]) -> None:
    assert list(unmarked(template)) == found


@pytest.mark.parametrize(
    "path", [path for path in CODE if "pages" in path.parts or "views" in path.name], ids=lambda path: path.name
)
def test_pages_mark_what_they_tell(path: Path) -> None:
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    told = [
        call.args[1]
        for call in calls
        if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "messages"
    ]
    assert [ast.unparse(text) for text in told if isinstance(text, ast.Constant | ast.JoinedStr)] == []


# --- stored and declared texts -----------------------------------------------------------


def test_stored_sentence_is_read_in_the_language_of_the_reader(in_german: None) -> None:
    stored = SPENT[THE_BUDGET, "calls"] % {"n": "1,200"}
    assert translated(stored) == "das Budget von 1,200 Aufrufen ist verbraucht"


def test_stored_sentence_without_translation_stays(in_german: None) -> None:
    assert translated("ConnectionError: refused (%(n)s)") == "ConnectionError: refused (%(n)s)"


def test_state_is_read_in_the_language_of_the_reader(in_german: None) -> None:
    run = Run(project=Project(), state=Run.State.CANCELLED)
    assert translated(run.get_state_display()) == "abgebrochen"


def test_english_reader_gets_what_was_stored() -> None:
    assert translated("the budget of 5 calls is spent") == "the budget of 5 calls is spent"


@pytest.fixture
def in_german() -> Iterator[None]:
    with translation.override("de"):
        yield
