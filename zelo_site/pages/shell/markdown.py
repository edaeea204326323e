"""Markdown to HTML, for the documentation. markdown-it escapes markup in the text and refuses script addresses, so nothing of
a file can run; this module adds anchors to headings and rewrites links between the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("js-default")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading below the title: its text and its anchor."""

    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered file. `title` is its first heading; `html` is safe."""

    title: str
    html: str
    headings: list[Heading]


def render_markdown(text: str, *, link: Callable[[str], str], image: Callable[[str], str]) -> Document:
    """Render a file; `link` and `image` turn the addresses that it names into those of the site."""
    tokens = _MARKDOWN.parse(text)
    headings: list[Heading] = []
    title, used = "", {}  # type: ignore[var-annotated]
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            words = _plain(tokens[at + 1])
            anchor = _anchor(words)
            used[anchor] = used.get(anchor, -1) + 1
            anchor = f"{anchor}-{used[anchor]}" if used[anchor] else anchor
            token.attrSet("id", anchor)
            if token.tag == "h1" and not title:
                title = words
            elif token.tag == "h2":
                headings.append(Heading(words, anchor))
        elif token.type == "table_open":
            token.attrSet("class", "tight")
    for each in _inline(tokens):
        if each.type == "link_open":
            each.attrSet("href", link(str(each.attrGet("href") or "")))
        elif each.type == "image":
            each.attrSet("src", image(str(each.attrGet("src") or "")))
            each.attrSet("loading", "lazy")
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    html = html.replace("<table", '<div class="scroll" tabindex="0"><table').replace("</table>", "</table></div>")
    return Document(title, html.replace("<pre>", '<pre tabindex="0">'), headings)


def _inline(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def _plain(token: Token) -> str:
    return "".join(each.content for each in token.children or () if each.type in {"text", "code_inline"})


def _anchor(words: str) -> str:
    """As GitHub makes it, so that links in the repository lead to the same place."""
    return re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
