"""Words of which the announcement of an answer consists: "Final answer:", "Here is my evaluation:", "最终答案：".

An announcement holds no other word, and at least one that tells of an answer. So "Document B:", "Cached result:" or "Risposta sbagliata:" announces none, whatever the word says and whatever
its language. Pure functions of a text.
"""

from __future__ import annotations

import re

_ENGLISH = frozenset(
    re.findall(
        r"\S+",
        "assesses compares evaluates indicates ranks reflects represents summarizes a above according accordingly after again all am "
        "an analysis and answer answering answers are arrive as ask asked asking assess assessed assessing assessment at b based be "
        "been being below best better between boxed both but by calculated can careful carefully certainly choice come compare "
        "compared comparing comparison comparative comparisons complete conclude conclusion concise consequently consideration "
        "considering corrected correction course criteria decision detailed determine determined doc docs document documents each end "
        "evaluate evaluated evaluating evaluation exact expressed final finally find fixed follow following follows for form format "
        "formatted from full get give given gives giving happy have having hence here here's here’s honest i i'd i’d i'll i’ll i'm i’m "
        "i've i’ve in indicated information instructions into is it it's it’s its json judge judged judgement judgment judgments just "
        "last lead leads let let's likely me more my necessary need needed now object of official ok okay on one only out output "
        "outputs overall pair pairwise passage passages per pleased point points preference present produce produced produces provide "
        "provided provides put query question ranking rate rated rating ratings read reading reason reasoning reflection regarding "
        "relevance relevant reply report request requested required respond response result resulting results return returned "
        "returning revised score scored scores scoring second see set settle shall short should show showing shown shows single so "
        "strict structured structure sum summarize summarized summary sure terms text texts than that the their them then therefore "
        "these this those thought thus to together two ultimately under up upon us using valid value values verdict we well what which "
        "will with within would written yes yield yields you your actually amended edited adjusted closer look reconsidered "
        "reconsidering review schema specification task assign assigned choose chosen contains corresponding go how i'd like list listed "
        "content contents information most least ordered please preferred ranked ranks rankings representation representing respect summarizing summarising supporting "
        "thoughts vs weigh weighed weighing strictly winner match ",
    )
)
_OTHERS = frozenset(
    re.findall(
        r"\S+",
        "antwort ergebnis bewertung urteil ausgabe fazit einschätzung beurteilung entscheidung vergleich der die das dem den des ein "
        "eine einen einer eines mein meine meiner meinem finale finales finalen endgültige endgültiges endgültigen abschließende "
        "abschließendes ist lautet lauten wie folgt folgende folgendes folgenden hier also daher somit deshalb folglich insgesamt "
        "zusammenfassend ich bewerte beurteile im angeforderten gewünschten geforderten gewünschte angeforderte als objekt und beiden "
        "dokumente dokumenten zur zum für anfrage réponse résultat évaluation jugement comparaison la le les un une mon ma mes est "
        "définitive voici donc ainsi suit comme au du de en l'évaluation l’évaluation l'objet l’objet objet demandé demandée requis "
        "sortie deux suivant suivante et je propose donne respuesta resultado evaluación calificación veredicto conclusión comparación "
        "puntuación el los las mi mis es definitiva aquí está tiene siguiente siguientes formato solicitado solicitada salida sigue "
        "por tanto lo entonces dos documentos y risposta risultato valutazione giudizio il mia mio è ecco quindi segue richiesto "
        "seguente resposta avaliação minha meu o aqui portanto antwoord resultaat beoordeling het mijn volgt uiteindelijke dus "
        "odpowiedź wynik ocena oto moja ostateczna ответ результат оценка мой моя итоговый окончательный итог вот svar slutligt mitt "
        "är cevap sonuç son الجواب الإجابة النتيجة النهائية النهائي هي उत्तर अंतिम ",
    )
)
# Scripts without blanks between words: pieces of words, the longest first.
_PIECES = re.findall(
    r"\S+",
    "最终 最終 最後 最后 答案 回答 答え 结果 結果 结论 結論 评估 评分 评价 評価 判断 判定 分数 得分 输出 出力 スコア 如下 "
    "以下 所示 下面 给出 得到 得出 比较 对比 比較 综合 因此 所以 综上 所述 格式 要求 按照 根据 这是 两篇 两个 文档 文件 "
    "相关性 分析 次の 通り とおり になります 示します まとめ したがって よって された 形式 최종 답변 평가 판단 점수 결과 결론 "
    "다음과 같습니다 입니다 비교 따라서 나의 저의 是 为 我 的 了 出 次 の は が です で を 私 답 즉 은 는 이 가 제 ",
)
_PIECE = re.compile("|".join(sorted(_PIECES, key=len, reverse=True)))


# Words of which an English announcement holds at least one: "Document B:", "Query:" and "Request:" announce none.
_TELLING = frozenset(
    re.findall(
        r"\S+",
        "answer answers answering verdict score scores scored scoring result results output outputs json object evaluation "
        "evaluated evaluating assessment assessed assess judgment judgement judgments comparison comparing compare comparisons "
        "analysis ranking ranked rate rating ratings reply response report respond responding decision choice conclusion "
        "conclude preference reasoning summary relevance final finally follows following below here here's here’s hence so "
        "therefore thus consequently accordingly ultimately overall ok okay sure yes certainly corrected correction revised "
        "edited amended adjusted actually reconsidered reconsidering reflection together thought look review determine say "
        "consideration considering boxed give provide assign thoughts winner match relevant better preferred choose likely it "
        "it's it’s ",
    )
)
_NOUN = r"(?:answers?|verdict|scores?|results?|outputs?|evaluation|assessment|judge?ments?|comparison|rating|reply|response|decision|conclusion)"
# One of several answers, none, or one that something else gives; a sentence that tells how to answer, as the prompt does.
_NOT_THE = re.compile(
    rf"\b(?:no|its|their|query) {_NOUN}\b|\b(?:above {_NOUN}|{_NOUN} above|short of)\b|\A(?:please|only|just|then|now)? ?(?:respond|return|give|provide|produce|write)\b|"
    r"\A(?:please|only|just|to)? ?(?:answer|reply|respond|output) (?:only|just|with)\b|\byou (?:will (?!find\b)|need to|have to|should|must)\b|\A(?:please(?! (?:find|see|note)\b)|you)\b|"
    rf"\b(?:one|second|last|each|than(?: the| this| my)?) {_NOUN}\b|\b{_NOUN}(?: \w+)? of one\b|\b(?:up to|at last|than)\b.*\b(?:now|point|review)\b"
)
_DECIMAL = re.compile(r"-?(?:0|1)?\.\d+|-?1\.0+")


def announces(words: str) -> bool:
    """Whether these lower-case words announce an answer: one that tells of it, and no others but those of announcements."""
    found = re.findall(r"[^\s,:;!、，。()]+", words)
    found = [word.strip(".") if not _DECIMAL.fullmatch(word) else word for word in found]
    found = [word for word in found if word]
    if not all(
        word in _ENGLISH or word in _OTHERS or _DECIMAL.fullmatch(word) or not _PIECE.sub("", word) for word in found
    ):
        return False
    if _NOT_THE.search(words):
        return False
    return any(word in _TELLING or (word not in _ENGLISH and not _DECIMAL.fullmatch(word)) for word in found)
