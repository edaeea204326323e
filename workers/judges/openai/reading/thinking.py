"""The final text of what a model wrote: without thinking of any tag or channel, and within its own turn.

Everything up to the last closing of thinking is no answer, whatever the tag, because chat templates may have opened it in
the prompt. Thinking that is opened and not closed was cut off. Imports no Django.
"""

from __future__ import annotations

import json
import re

# Words for thinking in the languages in which models are trained, as parts of a tag's name.
_WORDS = (
    r"think|thought|reason|reflect|scratchpad|monologue|denk|gedank|überleg|ueberleg|pens[ée]e|pensamiento|pensamento|pensiero|"
    r"réflexion|réfléchi|raisonne|razona|ragiona|racioc|мысл|рассужд|размышл|思考|思维|思路|推理|推論|想法|考え|생각|추론|تفكير|विचार"
)
# A character of a tag's name: vowels of many scripts are marks, which are no word characters.
NAME_PART = r"[^\s\x00-,/;-@\[-\^`{-\x7f｜]"
_THINKING_NAME = (
    rf"{NAME_PART}{{0,40}}(?:{_WORDS}){NAME_PART}{{0,40}}?|(?:[\w-]+:)?(?:analysis|cot|planning|draft|critique|分析)"
)
_SQUARE_NAME = (
    r"(?:(?:begin|start|end|inner|internal|my|of|chain|the)[\s_-]+){0,3}(?:think|thinking|thought|thoughts|reason|reasoning|"
    r"reflection|analysis|cot|scratchpad|monologue|思考|推理|分析)(?:[\s_-]+(?:begin|start|end|process))?"
)
_OPENS = r"(?:<|&lt;|&#0*60;|&#x0*3c;|\\u003c|\\<)"
_CLOSES = r"(?:>|&gt;|&#0*62;|&#x0*3e;|\\u003e|\\>)"
# Brackets that stand for < and > in tags, and for the square ones; the others are quotation marks elsewhere.
BRACKETS = str.maketrans("＜〈⟨⟪◁｟﹤≪❮❰⦑＞〉⟩⟫▷｠﹥≫❯❱⦒", "<<<<<<<<<<<>>>>>>>>>>>")
_QUOTES = str.maketrans("《「『«‹《〖【〔⟦》」』»›》〗】〕⟧", "<<<<<<<[[[>>>>>>>]]]")
# Characters that nobody sees, and controls that servers leave; ESC begins a style, which `elements` reads.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_TAG = re.compile(
    rf"{_OPENS}\s{{0,9}}[|｜]?\s{{0,9}}(?P<slash>\\?/|\\?)\s{{0,9}}[|｜]?(?P<name>" + _THINKING_NAME + r")"
    rf"(?:\s[^<>]{{0,120}}?)?\s{{0,9}}(?P<empty>/?)[|｜]?\s{{0,9}}{_CLOSES}"
    rf"|\[{{1,3}}\s*(?P<square>{_SQUARE_NAME})\s*\]{{1,3}}(?!\()"
    rf"|\[{{1,3}}\s*/\s*(?P<square_end>{_SQUARE_NAME})\s*\]{{1,3}}"
    r"|(?<!\w)(?P<round>[({](?P<round_slash>/?)(?:think|thinking|thought|thoughts)[)}])"
    r"|(?P<open><(?:unused|ctrl)94>(?:thought)?|<\|inner_prefix\|>|<\|channel>(?:thought|analysis)?|\A\s{0,9}here(?: is|['’]s) my thought process:)"
    r"|(?P<close><(?:unused|ctrl)95>|<\|inner_suffix\|>|<channel\|>|here(?: is|['’]s) my response:)",
    re.IGNORECASE,
)
_CLOSING_WORDS = {"end", "close", "stop", "done", "suffix"}
_OPENING_WORDS = {"start", "begin", "of", "open"}
_FENCE = re.compile(
    r"(?P<fence>```|~~~)[ \t]*(?:think|thought|reason|analysis|scratchpad)\w*[^\n]*\n.*?(?P<end>(?P=fence)|\Z)",
    re.DOTALL | re.IGNORECASE,
)

_HARMONY = re.compile(r"<\|(?:channel|message)\|>")
_MESSAGE_EDGE = re.compile(r"<\|(?:start|end|call|return)\|>")
_BARE_CHANNEL = re.compile(r"\s*(?:assistant)?(?:analysis|commentary)(?![a-z:])")
_BARE_FINAL = "assistantfinal"

_TURN_END = (
    r"<[|｜](?:im_end|eot_id|eom_id|eot|end|endoftext|end_of_text|return|end▁of▁sentence|end_of_turn|END_OF_TURN_TOKEN|"
    r"END_RESPONSE|end_of_solution|end_of_box)[|｜]>|</s>|<(?:end_of_turn|eos|pad)>"
)
_TURN_BEGIN = (
    r"<[|｜](?:im_start|start_header_id)[|｜]>\s*assistant(?!\w)\s*(?:<\|end_header_id\|>)?|<start_of_turn>model(?!\w)|<bos>|<s>|"
    r"<[|｜](?:START_RESPONSE|begin_of_solution|begin_of_text|begin_of_box|assistant)[|｜]>"
)
_HEAD = re.compile(rf"(?:\s|{_TURN_BEGIN})+", re.IGNORECASE)
_TAIL = re.compile(rf"(?:{_TURN_END})\Z")
_NEXT_TURN = re.compile(rf"{_TURN_END}|<[|｜]im_start[|｜]>|<[|｜]start_header_id[|｜]>|<start_of_turn>")


class UnfinishedThinking(ValueError):
    """The text ends inside its thinking, or in another channel than the final one."""


class SecondTurn(ValueError):
    """The text goes on after the end of the model's turn, so that no one knows which part is the answer."""


def final_text(text: str) -> str:
    """The text after its thinking, stripped; "" if nothing follows. Raises UnfinishedThinking and SecondTurn."""
    if _is_one_object(text):
        return text.strip()  # tags inside its strings are only mentioned
    final = _after_fences(_after_tags(_final_channel(_INVISIBLE.sub("", text))))
    final = _without_tail(without_head(final))
    if _NEXT_TURN.search(final):
        raise SecondTurn
    return final.strip()


def plain_brackets(text: str, *, quotes: bool = False) -> str:
    """The text, of equal length, with the brackets that stand for < and > as those; `quotes`: also those that mark quotations."""
    return text.translate(BRACKETS | _QUOTES) if quotes else text.translate(BRACKETS)


def without_head(text: str) -> str:
    """The text without blanks and beginnings of turns at its start."""
    head = _HEAD.match(text)
    return text[head.end() :] if head else text


def _without_tail(text: str) -> str:
    """The text without blanks and ends of turns at its end."""
    text = text.rstrip()
    while tail := _TAIL.search(text, max(0, len(text) - 40)):
        text = text[: tail.start()].rstrip()
    return text


def _is_one_object(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def begins_thinking(text: str) -> bool:
    """Whether a text, or the beginning of one, opens thinking: for first tokens."""
    try:
        is_marked = _TAG.search(plain_brackets(text, quotes=True)) or _HARMONY.search(text)
        return final_text(text) != text.strip() and bool(is_marked)
    except UnfinishedThinking:
        return True
    except SecondTurn:
        return False


def _final_channel(text: str) -> str:
    """The last message if it is in the channel `final`, in harmony's form (gpt-oss) with its special tokens or without."""
    if not _HARMONY.search(text):
        return _final_of_bare_channels(text)
    before, mark, message = text.rpartition("<|message|>")
    if not mark:
        raise UnfinishedThinking
    header = _MESSAGE_EDGE.split(before)[-1]
    _, channel, named = header.rpartition("<|channel|>")
    words = re.sub(r"<\|\w+\|>", " ", named if channel else header).split()
    name = (words[0] if channel else words[-1]).lower() if words else "final"
    if name not in {"final", "assistant"}:
        raise UnfinishedThinking
    edge = _MESSAGE_EDGE.search(message)
    if edge is None:
        return _whole(message)
    if _MESSAGE_EDGE.sub("", message[edge.start() :]).strip():
        raise UnfinishedThinking  # another message began
    return message[: edge.start()]


def _whole(message: str) -> str:
    if "<|channel|>" in message:
        raise UnfinishedThinking
    return message


def _final_of_bare_channels(text: str) -> str:
    """ "analysis...assistantfinal...": harmony after a decoder that drops special tokens."""
    place = text.rfind(_BARE_FINAL)
    if place < 0:
        if _BARE_CHANNEL.match(text):
            raise UnfinishedThinking
        return text
    final = text[place + len(_BARE_FINAL) :]
    if re.search(r"assistant(?:analysis|commentary)", final):
        raise UnfinishedThinking
    return final


def _after_tags(text: str) -> str:
    """The text after the last closing tag of thinking. Raises UnfinishedThinking if a tag stays open."""
    opened: list[str] = []
    end, previous = 0, -1
    for tag in _TAG.finditer(plain_brackets(text, quotes=True)):
        name, closes = _read_tag(tag)
        if closes:
            # A closing tag also closes what was opened inside; one that nothing here opened was opened in the prompt.
            place = len(opened) - 1 - opened[::-1].index(name) if name in opened else 0
            del opened[place:]
            end, previous = tag.end(), -1
            continue
        is_repeated = previous >= 0 and not text[previous : tag.start()].strip()
        if not (is_repeated and opened and opened[-1] == name):
            opened.append(name)
        previous = tag.end()
    if opened:
        raise UnfinishedThinking
    return text[end:]


def _read_tag(tag: re.Match[str]) -> tuple[str, bool]:
    """(name, whether it closes). An empty element closes: what stands before it is no answer."""
    if tag["open"] or tag["close"]:
        mark = (tag["open"] or tag["close"]).strip().lower()
        family = next((each for each in ("unused", "inner", "channel", "here") if each in mark), mark)
        return family, bool(tag["close"])
    if tag["round"]:
        return "round", bool(tag["round_slash"])
    if square := tag["square"] or tag["square_end"]:
        words = re.split(r"[\s_-]+", square.lower())
        kept = [word for word in words if word not in _CLOSING_WORDS | _OPENING_WORDS]
        return " ".join(kept), bool(tag["square_end"]) or bool(_CLOSING_WORDS & set(words))
    words = [word for word in re.split(r"[_▁\W]+", tag["name"].lower()) if word]
    kept = [word for word in words if word not in _CLOSING_WORDS | _OPENING_WORDS]
    return " ".join(kept), bool(tag["slash"] or tag["empty"] or _CLOSING_WORDS & set(words))


def _after_fences(text: str) -> str:
    """The text after the last fenced block that is marked as thinking."""
    end = 0
    for fence in _FENCE.finditer(text):
        if not fence["end"]:
            raise UnfinishedThinking
        end = fence.end()
    return text[end:]
