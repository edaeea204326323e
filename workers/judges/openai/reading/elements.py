"""Elements of a final text: those that hold an answer, plain markup, and those whose name nobody knows.

A model may put its thinking into an element of any name and of any brackets. So a text in an unknown element, or before the end of one,
is no answer. Tags inside the strings of a complete JSON object are only mentioned. Pure functions of a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from workers.judges.openai.reading.thinking import NAME_PART, plain_brackets, without_head

ANSWERS = frozenset(
    [
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
    ]
)
MARKUP = frozenset(
    ["p", "pre", "code", "div", "span", "b", "i", "em", "strong", "br", "hr", "ul", "ol", "li", "html", "body", "text"]
)
_OPENS, _CLOSES = r"(?:<|&lt;|&#0*60;|&#x0*3c;|\\u003c|\\<)", r"(?:>|&gt;|&#0*62;|&#x0*3e;|\\u003e|\\>)"
_TAG = re.compile(
    rf"{_OPENS}[|｜]?(?P<slash>\\?/|\\?)\s{{0,9}}(?P<name>\w{NAME_PART}{{0,60}}?)(?P<attributes>\s[^<>]{{0,200}}?)?(?P<empty>/?)[|｜]?{_CLOSES}"
)
# An attribute that says no more than that the content is the requested JSON.
_PLAIN_ATTRIBUTE = re.compile(
    r"\s*(?:(?:class|lang|language|type|format)\s*=\s*[\"']?(?:language-|application/|text/)?\w*json[\"']?)?\s*"
)
# Words of a name by which it closes: <|end_notes|>, [END NOTES], "done thinking".
_END = r"(?:end|close|stop|done|finish(?:ed)?)"
_NAME = r"[^\W_][^\n\[\]{}()<>%@#$|:=*~!/\\]{0,40}?"
# The end of a section in brackets or marks of any kind: [/notes], {{/notes}}, %/notes%, @@end notes@@, \end{notes}, "--- end of notes ---".
_SECTION_END = re.compile(
    rf"(?:[\[{{]{{1,3}}%?\s{{0,3}}(?:/|{_END}[\s_-]?)|\(\s{{0,3}}/)\s{{0,3}}(?P<bracketed>{_NAME})\s{{0,3}}%?[\])}}]{{1,3}}"
    rf"|(?:(?<!\w)|(?=[%@#$|]{{1,9}}/))(?P<mark>[%@#$|:=*~!_-]{{1,9}})\s{{0,3}}(?:/|{_END}[\s_-](?:of\s)?)\s{{0,3}}(?P<marked>{_NAME})\s{{0,3}}(?P=mark)"
    rf"|\\end\{{(?P<tex>{_NAME})\}}"
    rf"|(?:\A|(?<=\n))[^\w\n]{{0,9}}(?:/|(?:end|done|finished)[ \t_-](?:of[ \t])?)[ \t]{{0,3}}(?P<line>[^\W_][\w \t-]{{0,30}}?)[^\w\n]{{0,9}}(?=\n|\Z)",
    re.IGNORECASE,
)
# The beginning of one, as the first thing on a line; "[Document A]", "| a | table |" and "**a heading**" are none.
_SECTION_BEGIN = re.compile(
    rf"(?:\A|(?<=\n))[ \t]{{0,9}}(?:[\[{{]{{1,3}}%?\s{{0,3}}(?P<bracketed>{_NAME})\s{{0,3}}%?[\]}}]{{1,3}}(?!\()"
    rf"|(?P<mark>[%@#$]{{1,9}}|[:=~-]{{2,9}})\s{{0,3}}(?P<marked>{_NAME})\s{{0,3}}(?P=mark)|\\begin\{{(?P<tex>{_NAME})\}}"
    rf"|[^\w\n]{{0,9}}(?:begin|start)[ \t_-](?:of[ \t])?[ \t]{{0,3}}(?P<line>[^\W_][\w \t-]{{0,30}}?)[^\w\n]{{0,9}}(?=\n|\Z))",
    re.IGNORECASE,
)
# Further names whose end says no more than that the answer ends.
_OF_ANSWER = re.compile(
    r"(?:(?:the|my|of|this|final|json|answer|response|reply|output|result|evaluation|assessment|judge?ment|comparison|verdict|score|"
    r"scores|ranking|report|analysis and score|document|file|message|text|transmission)\W*)+",
    re.IGNORECASE,
)
# What stands directly before an object that is inside a comment, of any language: "/*", "(* ", "{# ", "<#", "#|", "//".
_COMMENT = re.compile(r"(?:[({<\[/](?:\*(?!\*)|[#%!|+~;:])+|[#%]\||(?:\A|\n)[ \t]*(?://|;|%))[ \t\n]*\Z")
_NO_SECTION = re.compile(
    r"\W*(?:(?:the\W)?(?:document|doc|passage|text|query|option|judge)s?\b.*|.{0,2}|[\W\d]*)", re.IGNORECASE
)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>|\A\s*<\?xml[^<>]{0,100}\?>", re.DOTALL | re.IGNORECASE)
_INLINE, _BREAK = re.compile(r"</?(?:b|i|em|strong|span)>", re.IGNORECASE), re.compile(r"<br\s*/?>", re.IGNORECASE)
_FAINT = re.compile(r"\x1b\[(?:\d{1,3};)*(?:2|3|8|9|90)(?:;\d{1,3})*m")
_PLAIN_STYLE = re.compile(r"\x1b\[0?(?:;\d{1,3})*m|\x1b\[(?:22|23|28|29|39)m")
_DECODER = json.JSONDecoder(strict=False)
MOST_OBJECTS = 256


def without_wrappers(text: str) -> str:
    """The text without CDATA's marks and the head of an XML document."""
    return _CDATA.sub(lambda found: found[1] or "", text)


def after_unknown_sections(text: str) -> str:
    """The text after the last end of an unknown element or section, and after the last comment. "" inside one that was opened before."""
    masked = _masked(text)
    ends = [(tag.end(), _element(tag)) for tag in _unknown_tags(masked) if _closes(tag)]
    ends += [(tag.end(), _element(tag)) for tag in _unknown_tags(plain_brackets(masked, quotes=True)) if tag["slash"]]
    ends += [(each.end(), _name(each)) for each in _SECTION_END.finditer(masked) if not _is_of_answer(_name(each))]
    ends += [(found.end(), "") for found in re.finditer(r"-->|\*/", masked)]
    last = max((end for end, _ in ends), default=0)
    is_inside = any(tag.end() <= last for tag in _open_tags(masked)) or any(
        begin.end() <= last and not any(end > begin.end() and name == _name(begin) for end, name in ends)
        for begin in _section_begins(masked)
    )
    return "" if is_inside else without_head(text[last:]) if last else text


def is_in_unknown_element(text: str, start: int) -> bool:
    """Whether an unknown element or section, a comment or a faint style is open at this place of a text without ended ones."""
    masked = _masked(text[:start])
    if any(
        masked.rfind(begin) > masked.rfind(end) for begin, end in (("<!--", "-->"), ("/*", "*/"))
    ) or _COMMENT.search(masked):
        return True
    faint, plain = (
        max((found.end() for found in style.finditer(masked)), default=-1) for style in (_FAINT, _PLAIN_STYLE)
    )
    return faint > plain or bool(_open_tags(masked)) or bool(_section_begins(masked))


def is_commented(text: str) -> bool:
    """Whether a text begins with the mark of a comment."""
    mark = re.match(r"\W*", text)
    return mark is not None and _COMMENT.search(mark[0]) is not None


def after_unknown_elements(text: str) -> str:
    """The text after the last unknown element, section or comment, without plain markup. "" where one is never closed."""
    text = after_unknown_sections(text)
    if is_in_unknown_element(text, len(text)):
        return ""
    return _TAG.sub(_kept, text)


def plain_tags(text: str) -> str:
    """The text with its plain tags without their attributes."""
    return _TAG.sub(lambda tag: f"<{tag['slash']}{tag['name']}>" if _is_plain(tag) else tag[0], text)


def as_marks(text: str) -> str:
    """The text with inline markup as the asterisks of Markdown, and <br> as a line end."""
    return _INLINE.sub("**", _BREAK.sub("\n", text))


def _masked(text: str) -> str:
    """The text, of equal length, with the insides of complete JSON objects as blanks."""
    text = plain_brackets(text)
    place = text.find("{")
    for _ in range(MOST_OBJECTS):
        if place < 0:
            break
        try:
            _, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        if end - place > 2:
            text = f"{text[: place + 1]}{' ' * (end - place - 2)}{text[end - 1 :]}"
        place = text.find("{", end)
    return text


def _unknown_tags(text: str) -> Iterator[re.Match[str]]:
    return (tag for tag in _TAG.finditer(text) if not _is_plain(tag) and not tag["empty"])


def _section_begins(text: str) -> list[re.Match[str]]:
    found = [each for each in _SECTION_BEGIN.finditer(text) if not _SECTION_END.match(text, each.start())]
    return [each for each in found if not _is_of_answer(_name(each)) and not _NO_SECTION.fullmatch(_name(each))]


def _name(section: re.Match[str]) -> str:
    name = section["bracketed"] or section["marked"] or section["tex"] or section["line"]
    words = re.split(r"[\s_-]+", name.strip().lower())
    return " ".join(word for word in words if not re.fullmatch(rf"{_END}|begin|start|open|of|the|my", word))


def _is_of_answer(name: str) -> bool:
    return _OF_ANSWER.fullmatch(name) is not None or name in ANSWERS | MARKUP


def _open_tags(text: str) -> list[re.Match[str]]:
    """The unknown tags that nothing closes, without those that a sentence only mentions."""
    opened: list[re.Match[str]] = []
    for tag in _unknown_tags(text):
        if not _closes(tag):
            is_repeated = (
                opened and _element(opened[-1]) == _element(tag) and not text[opened[-1].end() : tag.start()].strip()
            )
            opened[-1:] = [tag] if is_repeated else [*opened[-1:], tag]
            continue
        same = [place for place, each in enumerate(opened) if _element(each) == _element(tag)]
        del opened[same[-1] if same else len(opened) :]
    return [tag for tag in opened if not _is_mentioned(text, tag)]


def _element(tag: re.Match[str]) -> str:
    """The name of an element without the word that opens or closes it."""
    words = re.split(r"[_▁:.-]", tag["name"].lower())
    return " ".join(word for word in words if not re.fullmatch(rf"{_END}|begin|start|open", word))


def _is_plain(tag: re.Match[str]) -> bool:
    return tag["name"].lower() in ANSWERS | MARKUP and _PLAIN_ATTRIBUTE.fullmatch(tag["attributes"] or "") is not None


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["slash"]) or any(re.fullmatch(_END, word) for word in re.split(r"[_▁:.-]", tag["name"].lower()))


def _is_mentioned(text: str, tag: re.Match[str]) -> bool:
    """Whether words of the same line stand directly before and after a tag."""
    before = re.search(r"\w[ \t,(\"'`“]{0,4}\Z", text[: tag.start()])
    return before is not None and re.match(r"[ \t,)\"'`”]{0,4}\w", text[tag.end() :]) is not None


def _kept(tag: re.Match[str]) -> str:
    return "" if tag["name"].lower() in MARKUP and _is_plain(tag) else tag[0]
