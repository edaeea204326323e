"""The format `trec-topics`: queries alone, in TREC's tagged text. Imports no Django."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO, Literal

import pydantic

from labeling.importing.formats import fields
from labeling.importing.formats.fields import decoded
from labeling.importing.formats.line_importer import LineOptions, Row, RowImporter
from labeling.importing.lines import RowError, numbered_lines
from labeling.plugins import register
from labeling.records import ImportedQuery

_FIELDS = ("num", "title", "desc", "narr", "query", "question", "description", "narrative")
_TAG = re.compile(rf"<(/?)({'|'.join(_FIELDS)}|top|topic)\b([^>]*)>", re.IGNORECASE)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_ATTRIBUTE = re.compile(r"""\b(?:number|num|id|qid)\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
# Prefixes of the values in older tracks, as in "<num> Number: 301".
_LABELS = {
    "num": re.compile(r"^\s*(?:number|topic)?\s*:?\s*", re.IGNORECASE),
    "title": re.compile(r"^\s*(?:topic\s*:)?\s*", re.IGNORECASE),
    "desc": re.compile(r"^\s*(?:description\s*:)?\s*", re.IGNORECASE),
    "narr": re.compile(r"^\s*(?:narrative\s*:)?\s*", re.IGNORECASE),
}
_SAME = {"description": "desc", "narrative": "narr", "query": "title"}
_CHOICES = {"title": ("title", "question"), "description": ("desc", "question"), "narrative": ("narr",)}


class TopicsOptions(LineOptions):
    field: Literal["title", "description", "narrative"] = pydantic.Field(
        default="title", description="The part of a topic that becomes the query; the others become metadata."
    )


@register
class TrecTopics(RowImporter):
    """Topics of TREC tracks as queries without candidates: `<top>` with `<num>` and `<title>`, or `<topic number="1">`."""

    name = "trec-topics"
    label = "TREC topics (queries)"
    format_help = 'Topics in tags: <top> <num> Number: 301 <title> ... <desc> ... </top>, or <topic number="301">.'
    example = (
        b"<top>\n<num> Number: 301\n<title> do goldfish grow\n<desc> Description:\nHow large do goldfish get?\n"
        b"<narr> Narrative:\nRelevant documents name a size.\n</top>\n"
        b'<topic number="302"><query>what is bread made of</query></topic>\n'
    )
    Options = TopicsOptions
    options: TopicsOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        return 0.95 if re.search(rb"<top(?:ic\b[^>]*)?>", head[:20_000], re.IGNORECASE) else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        topic: _Topic | None = None
        line, is_broken = 0, False
        for line, body in numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            try:
                if isinstance(body, RowError):
                    raise body
                for mark, text in _pieces(decoded(body, line)):
                    if mark is None and is_broken:
                        continue  # the rest of a topic whose error was named
                    if mark is None:
                        _add(topic, text, line, self.options.max_line_bytes)
                        continue
                    is_end, name, rest = mark
                    if name in ("top", "topic"):
                        if topic is not None:
                            ended, topic = topic, None
                            yield self._query(ended)
                        topic, is_broken = None if is_end else _Topic(line, rest), False
                    elif topic is not None:
                        topic.open("" if is_end else name)
            except RowError as error:
                topic, is_broken = None, True
                yield error
        if topic is not None:
            yield RowError(
                "the file ends inside a topic",
                line=topic.line,
                expectation="</top> or </topic> behind each topic",
                remedy="copy the file again, or close the last topic",
            )

    def _query(self, topic: _Topic) -> ImportedQuery:
        whole = {name: _CDATA.sub(_escaped, "".join(pieces)) for name, pieces in topic.fields.items()}
        found = {name: " ".join(html.unescape(text).split()) for name, text in whole.items()}
        found = {name: _LABELS[name].sub("", value) if name in _LABELS else value for name, value in found.items()}
        wanted = next((name for name in _CHOICES[self.options.field] if found.get(name)), self.options.field)
        others = {name: value for name, value in found.items() if name not in (wanted, "num") and value}
        return ImportedQuery(
            id=fields.identifier(topic.number or found.get("num", ""), "num", topic.line),
            text=fields.text(found.get(wanted, ""), self.options.field, topic.line),
            documents=(),
            metadata=others,
            line=topic.line,
        )


def _escaped(section: re.Match[str]) -> str:
    """The text of a CDATA section, in which entities have no meaning."""
    return html.escape(section[1])


class _Topic:
    """An open topic: the line where it began, its number as an attribute, and the pieces of its fields."""

    def __init__(self, line: int, attributes: str) -> None:
        found = _ATTRIBUTE.search(attributes)
        self.line, self.number = line, found[1] if found else ""
        self.fields: dict[str, list[str]] = {}
        self.size = 0
        self._open = ""

    def open(self, name: str) -> None:
        self._open = _SAME.get(name, name)

    def add(self, text: str) -> None:
        self.size += len(text)
        if self._open:
            self.fields.setdefault(self._open, []).append(text)


def _add(topic: _Topic | None, text: str, line: int, limit: int) -> None:
    if topic is None:
        if text.strip() and not re.fullmatch(r"\s*(?:<[^>]*>\s*)*", text):
            raise RowError(
                "text outside of a topic",
                line=line,
                expectation="topics in <top> or <topic> tags",
                remedy="choose the right file and format",
            )
        return
    topic.add(text)
    if topic.size > limit:
        raise RowError(
            f"the topic that begins on line {topic.line} is longer than {limit} characters",
            line=line,
            expectation=f"at most {limit} characters in a topic",
            remedy="close the topic with </top>",
        )


def _pieces(text: str) -> Iterator[tuple[tuple[bool, str, str] | None, str]]:
    """Tags as (is_end, name, attributes) and the text between them; the line end is a blank."""
    last = 0
    for tag in _TAG.finditer(text):
        if tag.start() > last:
            yield None, text[last : tag.start()]
        yield (bool(tag[1]), tag[2].lower(), tag[3]), ""
        last = tag.end()
    yield None, text[last:] + " "
