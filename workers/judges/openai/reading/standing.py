"""Whether a JSON object stands as the answer: alone, after words that announce it, or after a colon; not inside a sentence.

A sentence may quote an object, or name it as a possibility, as another judge's answer or as what somebody asked for. Objects in
such a sentence are no answers. `order` decides between several objects. Pure functions of a text.
"""

from __future__ import annotations

import re

from workers.judges.openai.reading.announcing import announces
from workers.judges.openai.reading.elements import ANSWERS, MARKUP, as_marks, plain_tags
from workers.judges.openai.reading.order import REQUESTED_FORMAT
from workers.judges.openai.reading.thinking import plain_brackets

MOST_OF_A_HEADING = 30  # characters
_NEAR = 300  # characters on each side that are read
# Another label says what else the block holds: notes, thoughts.
_FENCE = re.compile(
    r"(?:```|~~~)[^\S\n]*(?:json\w*|te?xt|plain\w*|markdown|md|javascript|js|python|py|ya?ml|output|answer|result|response|code)?[^\S\n]*(?:\n|(?=[^\w\s])|\Z)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"[.!?…。！？][\s*_\"'”’)\]]*(?=\s|\Z)|[。！？]|\n\s*\n|[}\]]\s*\n|</?(?:"
    + "|".join(sorted(ANSWERS | MARKUP))
    + ")>",
    re.IGNORECASE,
)
# Abbreviations, whose period ends no sentence.
_ABBREVIATED = re.compile(
    r"(?<!\w)(?:evtl|ggf|z\.\s?b|bzw|vgl|ca|e\.\s?g|i\.\s?e|cf|viz|approx|resp|p\.\s?ej|p\.\s?ex|par ex|ex|bijv|bv|напр|vs)\.\s*\Z",
    re.IGNORECASE,
)
_SO = re.compile(
    r"[,;][\s]*(?:and )?(?:so|thus|therefore|hence|consequently)(?:,? (?:the|my) (?:final )?(?:answer|score|verdict|json) is)?[\s:*,]*\Z",
    re.IGNORECASE,
)
_QUOTED_LINE = re.compile(r"(?:\A|\n)[ \t]*>[^\n]*\Z")
# What servers and terminals leave: codes of colour and direction, the header of the turn, the name of a stream's field.
_CONTROLS = re.compile("(?:\x1b\\[[0-9;]*m|[\u200e\u200f\u202a-\u202e\u2066-\u2069])")
_HEADER = re.compile(r"\A\s*(?:assistant|model|data)\s*(?::|\n|(?=\{)|\Z)\s*", re.IGNORECASE)
_MARKS = re.compile(r"(?:[\s*_#$>`~\"“”«»(){}\\\[\]|<=→⇒-]|(?<!\w)['‘’]|['‘’](?!\w))+")
_CLAUSE = re.compile(r"[,;:：，；…—–\n]+(?=[^\n]*[^\W_])|\s-\s")
_COLON = re.compile(r"[:：][\s*_`\"'“”‘’«»(\[]*\Z")
# The letter of a document; "A" before a word is the article.
_NAMED = re.compile(
    r"(?<![^\W_])(?:[B-HJ-P]|A(?!\s+(?:\w+\s+)?(?:answer|score|json|verdict|result|response|output|evaluation|assessment|judge?ment|comparison|rating|reply|object|decision|conclusion)\b))(?![^\W_]|['’])"
)
_NUMBER = re.compile(r"(?:\A|\n)\s*(?:[-+•]|\(?\d{1,2}[.)])\s*\Z")
_STEP = re.compile(r"(?:\A|\n)\s*(?:step|part|section)?\s*\(?\d{1,2}[.):]\s*", re.IGNORECASE)

# Words by which a sentence speaks of a possible answer, or of somebody else's.
_HEDGE = re.compile(
    r"\b(?:could|can|might|may|maybe|perhaps|possibl[ey]|possibly|tempt(?:ed|ing)|hypothetical(?:ly)?|suppos\w*|assum\w*|imagin\w*|"
    r"pretend\w*|if|unless|whether|were|either|alternative(?:ly|s)?|otherwise|or|instead|another|others?|someone|somebody|"
    r"anyone|opposite|reverse[ds]?|swapped|switched|inverted|naive|careless|weaker|stronger|lazy|biased|previous(?:ly)?|earlier|"
    r"prior|former|old|initial(?:ly)?|first|draft|attempt(?:ed)?|guess|glance|considered|(?:am|was) considering|thought of|doubts?|doubtful|deny|"
    r"refus\w*|reject\w*|ignor\w*|disregard\w*|discard\w*|avoid\w*|wrong|incorrect|mistaken|false|bad|invalid|"
    r"not|never|cannot|can['’]t|won['’]t|don['’]t|doesn['’]t|wouldn['’]t|shouldn['’]t|n['’]t|"
    r"tentative(?:ly)?|provisional(?:ly)?|preliminary|interim|unverified|unconfirmed|yesterday|last time|to be (?:revised|checked|"
    r"confirmed|determined|decided)|(?:query|question|pair) \W?\d+|should|wants?|wanted|t(?:old|ells?)|instruct\w*|"
    r"prompt(?:s|ed)?|inject\w*|expects|suggest\w*|"
    r"he|she|they|judges?|raters?|annotators?|reviewers?|assistants?|colleagues?|users?|persons?|people|humans?|experts?|models?|gpt\w*|"
    r"examples?|sample|for instance|e\.g|template|placeholder|options?|version|variant|"
    r"andere[rsn]?|mögliche[rsn]?|könnte|würde|vielleicht|falsche?|nicht|beispiel|autre|possible|pourrait|peut-être|exemple|"
    r"otra|otro|posible|podría|quizás|ejemplo|altra|possibile|potrebbe|esempio|outra|possível|poderia|exemplo)\b|"
    r"друг|возможн|пример|其他|可能|例如|示例|别的|別の|例えば|かもしれ|다른|예시|가능",
    re.IGNORECASE,
)
_SPEECH = re.compile(
    r"\b(?:asks?|asked|claims?|claimed|says|said|writes|wrote|written|states|(?<!object )(?<!json )(?<!response )contains?|containing|quot\w*|reads|appears?)\b|"
    r"(?<!\bmy own)(?<=\w)['’]s (?:\w+ )?(?:answer|verdict|score|response|reply|output|judge?ment|rating|result|view|opinion)\b",
    re.IGNORECASE,
)
# "I would rate", "to answer the question", "not only": no possibilities.
_OWN = re.compile(
    r"\b(?:i|we)(?:['’]d| would| will|['’]ll| can| could now| may now| must| have to| should)? (?:now )?(?:therefore )?"
    r"(?:say|rate|judge|assess|score|answer|give|choose|conclude|evaluate|compare|provide|reply|respond|rank|put)\b|"
    r"\b(?:you(?: have)?|as|user|prompt)(?: ha[sd])? (?:asked|requested|instructed|specified|t(?:old)|wanted|expected|suggested)(?: for)?\b|"
    r"\b(?:answer|score|verdict|json|object|result|output|response) (?:should|would|must|will) be\b|\byou can find\b|\bcan be (?:found|given)\b|\b(?:document |passage |text )?[AB] (?:(?:does|do|is|has|did) not|(?:does|is|has|did)n['’]t)\b|\bnot only\b|\b(?:one|more) or (?:more|less)\b|\bfor (?:the )?(?:user|judge|reader)\b",
    re.IGNORECASE,
)
# A whole sentence before the object that says whose answer, or what kind of answer, comes next.
_ABOUT_NEXT = re.compile(
    r"\b(?:could|might|may|would)(?: (?:also|well|just|equally|instead|easily|have|then|perhaps|even))*"
    r" (?:answer|repl(?:y|ied)|respond|say|said|score|rate|judge|output|write|written|give|given|be|been|look)\w*\b"
    r"[^.!?\n]{0,40}\b(?:as follows|like this|this way|differently|this|so|the following|below|the (?:opposite|other way(?: round)?|reverse))\W*\Z|"
    r"\b(?:another|alternative|opposite|hypothetical|wrong|incorrect|bad|possible|previous|earlier|naive|tempting|invalid|swapped|"
    r"example|sample)(?: \w+){0,2} (?:answers?|repl(?:y|ies)|responses?|scores?|outputs?|verdicts?|json|judge?ments?)\b"
    r"[^.!?\n]{0,40}(?:follow\w*|this|below|comes?(?: next| here)?|here|looks?|next)\W*\Z|"
    r"\b(?:judge|rater|annotator|reviewer|assistant|colleague|model|expert|someone|somebody|human)s?\b[^.!?\n]{0,40}"
    r"\b(?:answer|repl|respond|say|said|score|rate|output|wrote|write)\w*\b[^.!?\n]{0,30}\b(?:as follows|like this|this|so|the following|below)\W*\Z|"
    r"\A\W*no (?:answer|result|verdict|score)\W*\Z|"
    r"\b(?:example|sample|wrong|bad|invalid|not)\b[^.!?\n]{0,60}\b(?:follows|below|here)\W*\Z|"
    r"\b(?:ignore|disregard|discard|skip|do not (?:read|use|count)) (?:this|that|the following|what follows)\W*\Z|\A\W*(?:this is (?:only |just )?)?an? (?:test|example|placeholder|draft)\W*\Z|"
    r"\b(?:i|we)\b[^.!?\n]{0,12}\b(?:cannot|can['’]?t|unable|not able|won['’]t|refuse|decline)\b(?: to)? (?:\w+ )?"
    r"(?:compare|judge|rate|score|determine|decide|assess|evaluate|answer|provide|give|help|assist|comply|fulfil\w*|do)\b",
    re.IGNORECASE,
)
_BECAUSE = re.compile(
    r"[\s,;—–-]*(?:because|since|as|given|so|which means|meaning|for|due|where|indicating|i\.e|based|that is|with)\b",
    re.IGNORECASE,
)
# An answer that a document gives.
_DOCUMENT = r"(?:(?:the |this |that )(?:document|doc|passage|text)(?: [A-P]\b)?|(?:document|doc|passage|text) [A-P]\b)"
_NOUN = r"(?:answer|output|score|result|verdict|evaluation|assessment|judge?ment|rating|reply|response|json|object)"
_GIVEN_BY_IT = re.compile(
    rf"\b(?:according to|as|in|inside|within|from)\W+{_DOCUMENT}\W+(?:put it\W+|has it\W+)?(?:(?:the|its|this|an?|final|correct|right|given|stated) )*{_NOUN}\b|"
    rf"\b(?:text|contents?|{_NOUN})(?: \w+)? (?:of|by|in|inside|within|from) {_DOCUMENT}\W*\Z|"
    rf"\b{_NOUN}\b(?: (?:that|which|is|was|as|given|provided|expressed|stated|written|found|you|would|be))*"
    rf" (?:(?:by|in|inside|within|from) {_DOCUMENT}\W*(?:is|are|was)?\W*\Z|{_DOCUMENT} (?:gives?|provides?|states?|shows?|requests?|produces?))|"
    rf"\b{_DOCUMENT} (?:gives?|gave|provides?|returns?|returned|produces?|produced|outputs?|shows?|requests?|requested|reads?)"
    rf" (?:(?:the|an?|its|this|following|final) )*{_NOUN}\W*\Z",
    re.IGNORECASE,
)
# Headings of what comes before an answer.
_BEFORE_ANSWER = re.compile(
    r"(?:(?:my|the|a|an|brief|short|detailed|step|by|relevance|comparative|internal|inner|careful|of|and)\s+)*(?:analysis|reasoning|reflection|reflections|thoughts?|"
    r"thinking|review|consideration|considerations|summary of (?:my )?reasoning|分析|推理|思考)"
)
_IS_ANSWER = re.compile(
    r"\W*(?:is|was|are|would be|that is|that's|this is)\W+(?:(?:my|the|an?|final|only|official|overall|own|definitive|single|honest|"
    r"best|correct|right)\W+)*(?:answer|verdict|score|result|response|output|judge?ment|reply|decision|rating|conclusion)\b",
    re.IGNORECASE,
)


def stands_as_answer(before: str, after: str, winner: str | None) -> bool:
    """Whether the text directly before an object and the text directly after it leave it standing as the answer. `winner`: the
    letters of the documents that it may name as the better one.
    """
    before = as_marks(plain_tags(_HEADER.sub("", plain_brackets(_CONTROLS.sub("", before)))))
    if re.search(r"(?<!~)~~\s*\Z", before) and after.lstrip().startswith("~~"):
        return False  # struck through
    if _QUOTED_LINE.search(before) and re.search(r"^(?!\s*>)[^\n]*\w", f"{before}\n{after}", re.MULTILINE):
        return False  # quoted by a text that is no quotation
    return _is_led_to(before[-_NEAR:], winner or "") and _is_ended(after[:_NEAR])


def _is_led_to(before: str, winner: str) -> bool:
    before = _NUMBER.sub("", _FENCE.sub("", before))
    is_own_line = before.rstrip(" \t*_`\"'“”[{(").endswith("\n")
    before = before.rstrip()
    ends = [] if _ABBREVIATED.search(before) else list(_SENTENCE_END.finditer(before))
    lead = before[ends[-1].end() :] if ends else before
    words = _plain(lead)
    if not words:
        last = _last_sentence(before)
        return not (_ABOUT_NEXT.search(last) or _BEFORE_ANSWER.fullmatch(_plain(last)))
    if (
        _is_hedged(lead)
        or _GIVEN_BY_IT.search(_MARKS.sub(" ", lead).rstrip(" :,"))
        or (_SPEECH.search(lead) and not _SO.search(lead))
    ):
        return False
    last = _CLAUSE.split(lead.rstrip(" \t*_`\"'“”‘’«»(["))[-1]
    clause = _plain(last)
    if _BEFORE_ANSWER.fullmatch(words):
        return False
    if announces(words) or announces(clause):
        return _is_not_of_another(lead if announces(words) else last, winner)
    if _COLON.search(lead):
        return not re.search(r"[^\W\d_]", lead)
    # A long line without an end leaves the object alone on its own line; a short one is a heading, which says what the object is.
    return is_own_line and len(words) > MOST_OF_A_HEADING


def _is_not_of_another(lead: str, winner: str) -> bool:
    """Whether an announcement names no document, several, or the winner: "Answer B:" is that of another document."""
    named = set(_NAMED.findall(lead))
    return len(named) != 1 or bool(named & set(winner))


def _is_hedged(lead: str) -> bool:
    plain = REQUESTED_FORMAT.sub(" ", _STEP.sub(" ", lead))
    return _HEDGE.search(_OWN.sub(" ", plain)) is not None


def _plain(text: str) -> str:
    return _MARKS.sub(" ", REQUESTED_FORMAT.sub(" ", _STEP.sub(" ", text))).strip(" .,:;：").lower()


def _last_sentence(before: str) -> str:
    """The last sentence that ends before the object."""
    text = before.rstrip(" \t\r\n.!?*_\"'”’)]…")
    ends = list(_SENTENCE_END.finditer(text))
    return text[ends[-1].end() :] if ends else text


def _is_ended(after: str) -> bool:
    """Whether the sentence ends with the object, or goes on with a reason."""
    rest = _FENCE.sub("", after)
    line = rest.lstrip(" \t*_`\"'“”’»)]>}").split("\n", 1)[0]
    if line.startswith(("?", "？")):
        return False
    if _IS_ANSWER.match(line):
        return True
    if re.match(r"[\s,;(—–-]*[^\W\d_]", line) and not re.match(r"[^\w]*[A-ZÀ-Þ]", line):
        return _BECAUSE.match(line) is not None or announces(_plain(line))
    return True
