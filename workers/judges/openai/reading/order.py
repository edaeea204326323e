"""Reads the words around JSON objects: they may withdraw an object, or let it replace an earlier one.

A later object replaces an earlier one only where the words directly before it say so ("Final answer:", "Revised:"). All other
words leave the order open, and objects that then differ are a contradiction. Pure functions of a text.
"""

from __future__ import annotations

import re
import unicodedata

MOST_GAP = 2000  # characters between two objects that are read for their order
_NEAR = 160  # characters before an object that are read for what they say of it

_FENCE = re.compile(r"```\w*")
_MARKS = re.compile(r"[\s*_#>`~\"'“”‘’()\[\]:=-]+")
_CLAUSE = re.compile(r"[.!?;:,\n{}…—–]|\s-\s")
_DIVIDER = re.compile(r"[-=*_.\s]*(?:->|=>|→|⇒)[-=*_.\s]*")

# "in the requested format": words of an announcement, not of an example.
REQUESTED_FORMAT = re.compile(
    r"\b(?:in|as|using|following|per|with)\s+(?:(?:the|your|a|this|that|json|requested|required|specified|given|desired|expected|"
    r"valid|correct|proper|strict|exact|above|needed|asked|prescribed)\s+)*(?:format|schema|form|structure)\b"
    r"(?:\s+(?:(?:that\s+)?you\s+)?(?:requested|required|specified|asked\s+for))?",
    re.IGNORECASE,
)

# Words that may stand between a negation or "example" and the object that it is about.
_OF_ANSWER = (
    r"(?:(?:a|an|the|this|that|it|be|is|was|were|would|could|should|will|my|your|our|of|for|as|with|by|like|to|i|you|we|me|"
    r"answer|answers|reply|replies|respond|response|output|outputs|object|json|score|scores|ranking|verdict|result|results|say|"
    r"write|give|return|produce|send|look|looks|following|below|right|correct|valid|good|acceptable|proper|wrong|incorrect|bad|"
    r"invalid|possible|final|best|what|how|format|form|something|anything|one|here|example|examples)\b[\s*_`\"'“”‘’()]*)*"
)
_SAID_NOT = re.compile(
    r"(?:\b(?:not|never|cannot|can['’]?t|don['’]?t|doesn['’]?t|isn['’]?t|wasn['’]?t|won['’]?t|wouldn['’]?t|shouldn['’]?t|"
    r"instead of|rather than|unlike|avoid|against|except|without|"
    r"wrong|incorrect|invalid|bad|poor|false|mistaken|misleading|unacceptable|rejected|discarded|outdated|obsolete|malformed|"
    r"counter-?examples?|for instance|e\.g\.|examples?|such as|sample|illustration|illustrative|hypothetical|placeholder|dummy|"
    r"looks? like|something like|(?:format|form|template|schema|pattern|structure|syntax)(?: (?:is|would be|was|are))?)"
    r"[\s*_`\"'“”‘’()]*)" + _OF_ANSWER + r"\Z",
    re.IGNORECASE,
)
_THINKING = re.compile(
    r"\W*(?:my |the |internal |inner )*(?:thinking|thoughts?|thought process|thinking process|monologue|scratchpad|draft|brainstorm\w*|notes)\W*",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|assuming|suppose|supposing|provided)\b[^.;{}\n]{0,80}\Z", re.IGNORECASE)
# Words that say that what follows replaces what stood before; a revision may also follow a final answer.
_REVISES = re.compile(
    r"(?:correct(?:ed|ion|ing)|revis(?:ed|ion|ing)|updat(?:ed|e)|reconsider(?:ed|ing)|reflection|rethinking|second (?:look|thought|thoughts)|"
    r"actually|amended|fixed|edit|adjusted|closer look|reread(?:ing)?|re-?reading|review|no)"
)
_CONCLUDES = re.compile(
    r"(?:final(?:ly|ized)?|so|therefore|thus|hence|conclusion|conclude|ultimately|overall|consequently|altogether|last|"
    r"all in all|in the end|in sum|in short|summary|settle)"
)
_NEUTRAL = (
    r"(?:and|but|then|now|ok|okay|well|hmm|wait|here|is|my|the|this|that|it|its|it's|a|an|i|in|on|at|as|to|after|upon|with|for|of|"
    r"am|will|would|be|becomes|say|give|have|come|more|careful|carefully|consideration|thought|thinking|having|both|documents|"
    r"again|once|judge?ment|answer|reply|response|output|result|object|json|score|scores|ranking|verdict|assessment|choice|"
    r"follows|following|below|format|requested|required|valid|single|one|only)"
)
_LEAD_WORD = re.compile(rf"(?:{_REVISES.pattern}|{_CONCLUDES.pattern}|{_NEUTRAL})")
# Words that make what follows one of several possible answers, or somebody else's, whatever else is said.
_OPEN = re.compile(
    r"\b(?:or|either|alternatively|alternative|alternatives|otherwise|else|if|unless|whether|example|examples|instance|judge|"
    r"judges|reviewer|rater|annotator|assistant|model|user|person|someone|somebody|others|colleague|could|might|may|maybe|"
    r"perhaps|possibly|prefer|option|version|variant|another|other|opposite|reverse|swapped|hypothetical|hypothetically|"
    r"format|template|schema|vs|versus|wrong answer|bad answer|incorrect answer)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"(?:\A|\n)\s*(?:[-+•*]|\(?\d+[.)]|\(?[A-Da-d][.):])\s*\Z|\b(?:\d+|[A-D]|one|two|three|first|second)\W*\Z"
)
_RETRACTED = re.compile(
    r"(?:\A|[.!?\n,;—–-])\W*(?:(?:but|however|although|though|and|yet|so|well)\W+)?(?:wait|actually|correction|on second thought|"
    r"on reflection|scratch that|hold on|hmm|no,|sorry|i meant|i was wrong|i made a mistake|i take (?:that|it) back|"
    r"(?:that|this|it|which)(?:['’]s| is| was| would be| should be)? (?:(?:a|an|the|my|only|just|clearly|probably|still|obviously)\s+)*"
    r"(?:wrong|incorrect|not(?! (?:as|so|close|only|just|merely|about|even|directly)\b)|reversed|swapped|mistaken|mistake|bad|false|invalid|error|example|draft|placeholder|guess|"
    r"first (?:guess|thought|draft)|opposite)|ignore (?:that|this|the)|disregard|strike that|oops|i mixed|i retract|"
    r"(?:is|was|would be|would have been) (?:(?:a|an|the|my|only|just)\s+)*(?:wrong|incorrect|not(?! (?:as|so|close|only|just|merely|about|even|directly)\b)|bad|mistaken|example|draft|"
    r"placeholder|first (?:guess|thought|draft)|mistake)|"
    r"(?:or|and)? ?(?:rather )?(?:it is |it['’]s |perhaps |maybe |quite |exactly )?(?:the )?(?:opposite|reverse|other way)|not!|"
    r"just kidding|never mind|nevermind)\b",
    re.IGNORECASE,
)


def squeezed(text: str) -> str:
    """The text with each long run of blanks as one: models that are held to JSON go on with blanks, over which patterns would run long."""
    return re.sub(r"\s{3,}", lambda run: "\n\n" if "\n" in run[0] else " ", text)


def is_said_not(before: str) -> bool:
    """Whether the text before an object says that it is an example, a format, a condition's answer, or not the answer."""
    near = REQUESTED_FORMAT.sub(" ", _FENCE.sub("", before[-_NEAR:])).rstrip(" \t\n:,*_`\"'“”‘’(")
    if re.search(r"\be\.g\.?\Z|\bfor (?:example|instance)\Z", near, re.IGNORECASE):
        return True
    clause = _CLAUSE.split(near)[-1]
    if _THINKING.fullmatch(clause):
        return True
    return _SAID_NOT.search(clause) is not None or _CONDITION.search(before[-_NEAR:]) is not None


def replaces(before: str, between: str) -> bool:
    """Whether an object replaces an earlier one. `before`: the text before the earlier one; `between`: up to the later one."""
    gap = unicodedata.normalize("NFKC", _FENCE.sub("", between))
    if _DIVIDER.fullmatch(gap):
        return True  # an arrow
    if len(gap) > MOST_GAP or _NUMBERED.search(gap.rstrip(" ")):
        return False
    lead, rest = _lead(gap)
    if _OPEN.search(rest) or is_said_not(between):
        return False
    if re.search(r"[.!]\s*\Z", gap):  # a sentence stands between, which says nothing of the later one
        return is_retracted(gap) and not _OPEN.search(gap)
    if not _is_lead(lead):
        return is_retracted(rest) and all(map(_LEAD_WORD.fullmatch, _words(lead)))
    earlier, _ = _lead(unicodedata.normalize("NFKC", _FENCE.sub("", before[-_NEAR:])))
    is_final_already = _is_lead(earlier) and "final" in earlier
    return not is_final_already or any(map(_REVISES.fullmatch, _words(lead)))


def _lead(text: str) -> tuple[str, str]:
    """(the words directly before an object, lower case; what stands before them)."""
    text = text.rstrip()
    text = text[: len(text) - len(_trailing(text))]
    ends = [match.end() for match in _CLAUSE.finditer(text)]
    start = ends[-1] if ends else 0
    return _MARKS.sub(" ", text[start:]).strip().lower(), text[:start]


def _trailing(text: str) -> str:
    match = re.search(r"[\s:,.*_#>`~\"'“”‘’(\[=-]+\Z", text)
    return match[0] if match else ""


def _words(lead: str) -> list[str]:
    """The words of a lead, with the phrases of two words as one."""
    return re.findall(r"second (?:look|thoughts?)|closer look|all in all|in the end|in sum|in short|[^\s]+", lead)


def _is_lead(lead: str) -> bool:
    """Whether these words announce the one answer, and say nothing else."""
    words = _words(lead)
    announces = any(_REVISES.fullmatch(word) or _CONCLUDES.fullmatch(word) for word in words)
    return announces and all(map(_LEAD_WORD.fullmatch, words))


def is_retracted(after: str) -> bool:
    """Whether the text after an object takes it back."""
    return _RETRACTED.search(squeezed(_FENCE.sub("", after))) is not None
