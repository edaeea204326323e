"""Reads the text around a JSON object: it may retract the answer, or name the other document as the winner.

A sentence about the object ("This is ...", "Das ist ...", "这是...") keeps it the answer only where it goes on with a reason or calls it the
answer. A sentence that names a winner must name the one that the object names. Pure functions of a text.
"""

from __future__ import annotations

import re

from workers.judges.openai.reading.announcing import announces
from workers.judges.openai.reading.elements import as_marks
from workers.judges.openai.reading.order import squeezed

_FENCE = re.compile(r"```\w*")
# A demonstrative with its verb, by which a sentence speaks of the object.
_OF_IT = re.compile(
    r"(?:\A|[.!?\n。！？(]|\b(?:but|however|although|though)\b|\b(?:aber|doch|mais|pero|но)\b|但是?|しかし)[\s*_>#(\"“^-]*"
    r"(?:(?:this|that|it|(?:the )?above|which|this (?:json|object|answer|score)|(?:the )?(?:json|object|answer|score)(?: above)?)"
    r"(?:['’]s| is| was| would be| remains)(?: (?:just|only|merely|simply|still|an?|the|my|not|probably|clearly|obviously))*|"
    r"(?:das|dies|diese antwort)(?: hier)? (?:ist|war|wäre)|ce(?:la|ci)? (?:n['’])?(?:est|était|serait)|c['’](?:est|était)|"
    r"(?:eso|esto|esta respuesta)(?: no)? (?:es|era|sería)|(?:questo|questa|ciò) (?:non )?(?:è|era)|isto (?:não )?é|это|dat is|dit is|"
    r"这(?:个答案|个)?(?:是|不是)|这(?:个答案)?(?=错|不)|これ[はが]|それ[はが]|이것은|그것은)\s*(?P<what>[^.!?\n。！？]*)",
    re.IGNORECASE,
)
_KEEPS = re.compile(
    r"\W*(?:-?\d+(?:\.\d+)?|(?:because|since|as|based|due|why|what|where|how|in line|consistent|supported|reflected|in favou?r|to say|for|given|so|meant|"
    r"justified|determined|calculated|derived|weil|da|denn|car|parce|porque|ya que|perché|因为|由于|根据|理由|なぜなら)\b|"
    r"(?:my |the |a |our |meine |die |ma |la |mi |final |official |overall |clear |strong |high |low |fair |direct |balanced |requested |complete |slightly |somewhat |much |far |clearly |marginally )*"
    r"(?:answer|verdict|score|result|response|output|judge?ment|reply|decision|rating|conclusion|assessment|evaluation|antwort|"
    r"réponse|respuesta|more relevant|most relevant|better|best|relevant|reasonable|correct|right|accurate|"
    r"preference|json|object|comparison|indication|evidence)\b|"
    r"(?:(?:clear|obvious|evident|apparent) (?:that|from|why)|worth|important to|(?:not )?close\b|not (?:as|only|just|about)\b|why\b)|我的|最终|答案)",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"(?:\A|\n)[\s(*_]*(?:just|only|merely|simply) (?-i:an?|the|my)\b|"
    r"\b(?:i|we)(?:['’]m| am|['’]ve| have| are| do| did|['’]d| would)?(?:n['’]t| not|['’]m not| never)(?: yet| fully| entirely| really| quite| so)?"
    r" (?:decided?|sure|certain|final(?:ised|ized)?|stand|settled?|convinced)\b|\b(?:i(?:['’]m| am) (?:still )?(?:unsure|uncertain|undecided))\b|"
    r"\b(?:let me|let['’]s|i(?:['’]ll| will| need to| should| must| have to| want to))(?: now| first| still)? (?:double|re-?check|check|verify|"
    r"reconsider|reassess|re-?evaluate|think|re-?read|look again|look at|revisit|compare)\b",
    re.IGNORECASE,
)
_NAMED = r"(?:the )?(?:document|doc|option|passage|text|dokument|documento|文档|文書|문서)?[\s*_\"'`“(\[]*(?P<{0}>[A-HJ-P])\b"
_MAY = r"(?: (?:actually|clearly|really|in fact|still|also|probably|indeed|simply|certainly|may|might|could|would|should|in|fact))*"
_WINNER = re.compile(
    rf"\b{_NAMED.format('subject')}[\s*_\"'`”)\]]*{_MAY} (?:is|seems|appears|be|remains|looks)(?: to be)?{_MAY}"
    rf"(?: (?:an?|the|much|far|slightly|somewhat|clearly|a bit))* (?:more relevant|most relevant|better|best|winner|stronger|superior|preferable|preferred|right choice)\b|"
    rf"\b{_NAMED.format('wins')}[\s*_\"'`”)\]]*{_MAY} (?:wins|win|ought to win|prevails|deserves|is ahead|it is\b|is{_MAY} it\b|takes it\b|does (?:it |an? )?(?:much |far )?better|outperforms|outranks|surpasses|beats|trumps|edges out|"
    rf"(?:answers?|fits?|matches|addresses|covers|serves|satisfies)\b[^.!?\n,;]{{0,40}}\b(?:better|best|more (?:directly|fully|completely|precisely))(?! than it\b))\b|"
    rf"\b(?:i|we)(?:['’]d| would|['’]ll| will)? (?:now |therefore |would |rather )*(?:choose|chose|pick|prefer|select|vote for|go with|say|favou?r) {_NAMED.format('chosen')}(?!\w| is (?:not|less))|"
    rf"\bonly {_NAMED.format('only')} (?:answers?|fits?|matches|addresses|satisfies|is relevant)\b|"
    rf"(?:\A|\n|[.!?] )[\s*_#>-]*(?:in the end|to conclude|to sum up|in conclusion|in short|all in all|overall|ultimately|finally)[\s,:]+{_NAMED.format('ends')}(?=[\s*_]*(?:[.!\n]|\Z))|"
    rf"\\boxed\{{(?:\\\w+\{{)?{_NAMED.format('boxed')}|"
    rf"(?:\A|\n|[.!?] )[\s*_#>-]*(?:so|thus|therefore|hence)?[\s,]*(?:my |the |our )?(?:(?:final|revised|corrected|overall|correct|best|better|more relevant|most relevant|"
    rf"updated?|actual) ?)*(?:ranking|order|pick|answer|verdict|choice|winner|vote|decision|preference|(?<=[a-z] )(?:document|one)|edit|correction|update|final|better|best)"
    rf"(?: is)?[\s*_]*[:=>→-]*[\s*_]*{_NAMED.format('answer')}[\s*_\"'`”)\]]*(?=[.!,;>\n]|\Z|{_MAY} is\b|\s*>)",
    re.IGNORECASE,
)


_ORDER = re.compile(r"(?<![^\W_])(?P<left>[A-HJ-P])\s*(?:(?P<more>[>≻])|[<≺])\s*(?P<right>[A-HJ-P])(?![^\W_])")
# Documents by their place: the first, the second, or another than the winner, which P stands for.
_HAS = r"(?= (?:is|was|wins|answers|fits|matches|seems|appears|looks|remains|does|should|would|might|may|actually|clearly|really|still)\b)"
_DOCUMENT = r"(?: (?:document|doc|one|passage|text|option))?"
_PLACES = [
    (re.compile(rf"\bthe (?:first|1st|former){_DOCUMENT}{_HAS}|\b(?:document|doc|passage|text|option) ?(?:1|one)\b", re.IGNORECASE), "A"),
    (re.compile(rf"\bthe (?:second|2nd|latter){_DOCUMENT}{_HAS}|\b(?:document|doc|passage|text|option) ?(?:2|two)\b", re.IGNORECASE), "B"),
    (re.compile(rf"\bthe other{_DOCUMENT}{_HAS}", re.IGNORECASE), "P"),
]  # fmt: skip
# Sentences by which no document wins, unless they weigh one against the other.
_NO_WINNER = re.compile(
    r"\b(?:both|they|(?:both |the two |the )?documents)(?: documents)? are (?:about |roughly |almost |both )?(?:equal(?:ly)?|the same|tied|irrelevant)\b|"
    r"\bneither (?:document |one |of them )?is (?:more |at all )?(?:relevant|better)\b|\bit(?:['’]s| is) an? (?:tie|draw)\b|\bi (?:can|could) ?not (?:tell|decide|say|judge|choose)\b|"
    r"\bno (?:clear )?(?:winner|preference)\b",
    re.IGNORECASE,
)


# A document that a sentence calls the worse one.
_LOSER = re.compile(
    rf"\b{_NAMED.format('loses')}[\s*_\"'`”)\]]*{_MAY} (?:is|seems|appears|looks|remains)(?: to be)?{_MAY}(?: (?:the|much|far|slightly|somewhat|clearly|a bit))*"
    r" (?:less relevant|least relevant|worse|worst|weaker|inferior|irrelevant|off-topic|not (?:the )?(?:more|most|better|best)\b(?! than (?:just|merely)))",
    re.IGNORECASE,
)
# Words that an English sentence has; a sentence without any is in a language whose words this module does not know.
_ENGLISH = re.compile(
    r"\b(?:the|is|are|was|it|its|this|that|these|because|and|of|to|not|does|do|has|have|you|if|with|for|in|on|which|both|than|names|hope|"
    r"thanks?|done|cheers|as|asked|requested|answers|explanation|note|reasoning|rationale|here)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?:[^.!?\n。！？]|[.!?](?![\s\"')]|\Z))*(?:[.!?\n。！？]|\Z)")
_NAMES = re.compile(r"(?<![^\W_])[A-HJ-P](?![^\W_]|['’])|(?<=文档)[A-P]|(?<=文書)[A-P]|(?<=是)[A-P]")
_NOT = re.compile(r"\b(can)['’]t\b|n['’]t\b")  # of "can't" and "isn't"
_SHORT = 40  # characters
_NEAR = 1000  # characters before an answer that are read
_WEIGHS = re.compile(
    r"\b(?:but|however|although|though|while|whereas|yet|despite|even if|at first|on the other hand|aber|obwohl|während|mais|bien que|"
    r"pero|aunque|però|ma|но|хотя)\b|但|虽然|しかし|하지만",
    re.IGNORECASE,
)
_MORE_OF_IT = re.compile(
    r"(?:\A|\n)\s*#*\s*(?:user|human|question|system|instructions?|input|query|task)\s*:|(?:\.\.\.|…)\s*\Z|\b(?:swapped|swap|inverted|reversed|mixed up|other way (?:a?round))\b|"
    r"\b(?:ignore|disregard|discard|forget)\b|\bshould (?:have been|be) (?:negative|positive|the opposite|lower|higher|reversed|-)|"
    r"\b[AB] as [AB]\b|\b(?:flipped|misread|misjudged|mislabell?ed|scrap|retract|withdraw|revise (?:this|that|it|my))\b|"
    r"\bich\b[^.!?\n]{0,80}(?:vertauscht|verwechselt|geirrt)|\bj['’]ai\b[^.!?\n]{0,30}(?:invers|confondu|mélang)|je me suis tromp|"
    r"\bhe (?:confund|invert|mezcl)|me equivoqu|\bho (?:invertito|scambiato|confuso|sbagliato)|\b(?:troquei|confundi|enganei)\b|перепутал|ошиб(?:ся|лась)|"
    r"[弄搞看]反了|取り違え|間違えまし|잘못 (?:읽|봤)|\bverwisseld\b|\bpomyli|"
    r"\b(?:negate|flip|invert) (?:that|this|it|the (?:sign|score))\b|\bmake (?:that|it|this) (?:-|minus|negative|positive)|\bbackwards?\b|\bwrong way (?:a?round)\b|"
    r"\bi (?:have )?confused\b|\byour own(?: (?:score|values?|answer|reasoning))?\W*(?:\Z|\n)|\bto be (?:revised|verified|confirmed|checked|decided|determined)\b|"
    r"(?:\A\s*|[.!?\n(]\s*)not (?:really|final|yet)\b|\bdo not use\b|"
    r"\b(?:answer|score|json|verdict|result|output|object)(?: \w+)? (?:is|was) (?:wrong|incorrect|mistaken|invalid|reversed|inverted|not (?:right|correct|final|valid))\b|"
    r"\bthis assumes\b|\b(?:now|here)\b[^.!?\n]{0,20}\b(?:real|actual|true|correct(?:ed)?) (?:answer|score|verdict|json)\b",
    re.IGNORECASE,
)


# The end of a text that was to go on: a heading or an opened element without content, a broken tag, an answer that is promised.
_GOES_ON = re.compile(
    r"[:：][\s*_`\"'“”]*\Z|(?:\A|\n)\s*(?:so|but|and|or|however|wait|hmm|now|then|thus|therefore|because|since|although|also|let me)\s*\Z|(?:\A|\n)[ \t]*(?:```|~~~)[ \t]*\w+\s*\Z|<\s*(?:answer|final|final_answer|response|output|result|json|verdict|score|vote)\b[^<>]*(?:>?\s*|>\s*</\s*\w+\s*>\s*|/>\s*)\Z|"
    r"<[/|]?\w*\s*\Z|\b(?:to (?:follow|come|be continued)|(?:will|shall|['’]ll)(?: now| then| next)?(?: then)? (?:follow|come|give|write|provide|output|produce|state|answer)|"
    r"(?:answer|score|verdict|json|result)\b[^.!?\n]{0,20}\b(?:follows|comes|next|below))\b[^.!?\n]*[.!?…)\]\s*_]*\Z",
    re.IGNORECASE,
)
_ENDING = 300  # characters that are read for it
_HEADING = re.compile(
    r"(?:\A|\n)[ \t]*(?:#{1,6}[ \t]*(?P<title>[^\n]+?)|[*_]{2}(?P<bold>[^\n*_]+?)[*_]{2}|[=-]{2,}[ \t]*(?P<rule>\w[^\n]*?)[ \t]*[=-]{2,})[\s*_#=-]*\Z"
)


def is_unfinished(after: str) -> bool:
    """Whether the text after an answer announces another one that does not come: a heading, an opened element, "to be continued"."""
    ending = as_marks(after).rstrip()[-_ENDING:]
    if _GOES_ON.search(ending):
        return True
    heading = _HEADING.search(ending)
    title = heading and (heading["title"] or heading["bold"] or heading["rule"])
    return bool(title) and not re.search(r"[.!?]\W*\Z", title or "") and announces((title or "").strip(" *_:").lower())


# A conclusion that is the whole of its sentence, or goes on with its reason; "better written" is none.
_CONCLUSION = re.compile(
    r"\b(?:[Tt]he )?(?:[Dd]ocument |[Dd]oc |[Oo]ption |[Pp]assage |[Tt]ext )?[*_\"'`]*(?P<winner>[AB])[*_\"'`]* is"
    r"(?: (?:the|a|an|much|far|clearly|therefore|thus|hence|overall|slightly|somewhat|significantly|definitely|also|therefore clearly))*"
    r" (?:more relevant|most relevant|more useful|more helpful|more direct|better|best|preferable|preferred|winner)"
    r"(?: (?:match|answer|choice|fit|document|option|one|passage|result))?"
    r"(?=[\s*_]*(?:[.!;]|\Z)|,|[\s]+(?:because|since|as|than|for (?:the|this)|to (?:the|this)|here|overall)\b)"
)
_CONDITION = re.compile(r"\b(?:if|unless|would|could|might|were|whether|suppose|except)\b", re.IGNORECASE)


def takes_back(after: str, winner: str | None) -> bool:
    """Whether the text after an answer leaves it standing no longer. `winner`: the document that it names, None for a tie, the
    letters of all that it may name where it names several.

    A sentence in a language that is not known here may explain the answer only by naming its winner.
    """
    after = _plain(after)
    if (
        winner
        and len(winner) == 1
        and any(not _WEIGHS.search(each[0]) and _NO_WINNER.search(each[0]) for each in _SENTENCE.finditer(after))
    ):
        return True
    if is_doubted(after) or _MORE_OF_IT.search(after) or _names_another(after, winner):
        return True
    return any(not _may_explain(match[0].strip(), winner) for match in _SENTENCE.finditer(after))


def _plain(text: str) -> str:
    """The text without fences and runs of blanks, with "not" for "n't", and letters for documents that are named by their place."""
    text = _NOT.sub(r"\1 not", squeezed(_FENCE.sub("\n", text)))
    for place, letter in _PLACES:
        text = place.sub(letter, text)
    return text


def _names_another(text: str, winner: str | None) -> bool:
    """Whether sentences name a winner that the answer does not, or its winner as the worse document."""
    names, losers = set(winner or ""), losers_in(text)
    return bool(winners_in(text) - names) or (losers >= names and bool(losers))


def _may_explain(sentence: str, winner: str | None) -> bool:
    words = re.sub(r"<[^<>]*>|[\W\d_]+", " ", sentence).strip().lower()
    if not words or _ENGLISH.search(sentence):
        return True
    named = set(_NAMES.findall(sentence))
    is_named = bool(named & set(winner or ""))
    if announces(words) and (not named or is_named):
        return True
    return is_named if named else len(sentence) > _SHORT or sentence.endswith(":")


def leads_to_another(before: str, winner: str | None) -> bool:
    """Whether the last sentence before an answer names another winner. `winner` as for `takes_back`.

    A sentence that weighs one thing against another ("but", "although") says nothing by one half of it. A text in a language that is
    not known here must name the answer's winner where its last sentence names a document.
    """
    before = _plain(before[-_NEAR:])
    names, is_english = set(winner or ""), _ENGLISH.search(before) is not None
    sentences = [each[0].strip(" \t\n*_`\"'“([:,") for each in _SENTENCE.finditer(before)]
    for sentence in [each for each in sentences if re.search(r"\w", each)][:-3:-1]:
        named = set(_NAMES.findall(sentence))
        if _WEIGHS.search(sentence) or names & winners_in(sentence):
            return False
        if _names_another(sentence, winner) or (named and not is_english and not named & names):
            return True
        if named:
            return False
    return False


def concludes_with_another(reasoning: str, winner: str | None) -> bool:
    """Whether the reasoning of an answer for A or B ends by calling the other document the better one, as for a score of the wrong sign.

    Only its last sentence that names a document counts, and only where it draws no comparison and sets no condition.
    """
    named = [each[0] for each in _SENTENCE.finditer(_plain(reasoning)) if _NAMES.search(each[0])]
    if winner not in ("A", "B") or not named or _WEIGHS.search(named[-1]) or _CONDITION.search(named[-1]):
        return False
    return {match["winner"] for match in _CONCLUSION.finditer(named[-1])} == {"B" if winner == "A" else "A"}


def is_doubted(after: str) -> bool:
    """Whether the text after an object says that it is something else than the answer, or that there is none yet."""
    after = squeezed(_FENCE.sub("", after))
    if _UNDECIDED.search(after):
        return True
    return any(match["what"].strip() and not _KEEPS.match(match["what"]) for match in _OF_IT.finditer(after))


def losers_in(after: str) -> set[str]:
    """The documents that sentences after an object call the worse one."""
    return {match["loses"] for match in _LOSER.finditer(squeezed(_FENCE.sub("", after))) if match["loses"].isupper()}


def winners_in(after: str) -> set[str]:
    """The documents, "A" or "B", that sentences after an object call the better one."""
    text = squeezed(_FENCE.sub("", after))
    found = (match.groupdict().values() for match in _WINNER.finditer(text))
    ordered = {match["left"] if match["more"] else match["right"] for match in _ORDER.finditer(text)}
    return {letter.upper() for letters in found for letter in letters if letter and letter.isupper()} | ordered
