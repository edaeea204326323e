"""Elements of XML in a final text: those that hold an answer, plain markup, and those whose name nobody knows.

A model may put its thinking into an element of any name. So text in an unknown element is no answer. Pure functions of a text.
"""

from __future__ import annotations

import re

from workers.judges.openai.reading.thinking import plain_brackets

_TAG = re.compile(r"<[|｜]?(?P<slash>/?)\s*(?P<name>[^\W\d_][\w:.-]*)(?:\s[^<>]*?)?(?P<empty>/?)[|｜]?>")
_ANSWERS = {
    "answer",
    "final",
    "final_answer",
    "response",
    "output",
    "result",
    "json",
    "conclusion",
    "score",
    "verdict",
    "vote",
    "reply",
    "judgment",
    "judgement",
    "json_output",
}
_MARKUP = {
    "p",
    "pre",
    "code",
    "div",
    "span",
    "b",
    "i",
    "em",
    "strong",
    "br",
    "hr",
    "ul",
    "ol",
    "li",
    "html",
    "body",
    "text",
}


def _unknown_tags(text: str, start: int, end: int) -> list[re.Match[str]]:
    tags = _TAG.finditer(plain_brackets(text), start, end)
    return [tag for tag in tags if tag["name"].lower() not in _ANSWERS | _MARKUP and not tag["empty"]]


def is_in_unknown_element(text: str, start: int, end: int) -> bool:
    """Whether an unknown element holds the piece of text; one that closes after it may have been opened in the prompt."""
    if text.rfind("<!--", 0, start) > text.rfind("-->", 0, start):
        return True
    opened: list[str] = []
    for tag in _unknown_tags(text, 0, start):
        name = tag["name"].lower()
        if not tag["slash"]:
            opened.append(name)
        elif name in opened:
            del opened[len(opened) - 1 - opened[::-1].index(name) :]
    inner: list[str] = []
    for tag in _unknown_tags(text, end, len(text)):
        name = tag["name"].lower()
        if not tag["slash"]:
            inner.append(name)
        elif name in inner:
            inner.remove(name)
        else:
            return True
    return any(_opens_line(text, name) for name in opened)


def _opens_line(text: str, name: str) -> bool:
    """Whether the element begins a line, so that it is no mention in a sentence."""
    return (
        re.search(rf"(?:\A|\n)\s*<[|｜]?\s*{re.escape(name)}[\s>|｜]", plain_brackets(text), re.IGNORECASE) is not None
    )


def after_unknown_elements(text: str) -> str:
    """The text after the last closing tag of an unknown element and after the last comment, without plain markup.

    "" where an unknown element begins a line and is never closed.
    """
    if is_in_unknown_element(text, len(text), len(text)):
        return ""
    ends = [tag.end() for tag in _unknown_tags(text, 0, len(text)) if tag["slash"]]
    ends += [match.end() for match in re.finditer("-->", text)]
    return _TAG.sub(_kept, text[max(ends, default=0) :])


def _kept(tag: re.Match[str]) -> str:
    return "" if tag["name"].lower() in _MARKUP else tag[0]
