"""Words of odd replies: prose, reasons, what leads to an answer, what only mentions one, and tags of thinking.

`odd_bodies` draws from them; "{}" stands for the object that states an answer.
"""

PROSE = (
    "Both documents speak of fish.",
    "Document A has the words of the query; document B explains more.",
    'One of them says "goldfish" and {curly} things.',
    "Let me weigh A or B again.",
    "It is about 3 of 4 points.",
)
REASONS = (
    "B answers it.",
    "Document A names <b>gold</b> and {braces}, B does not.",
    'It says \\"carp\\" twice;\\na line break, and a \\u00e9.',
    "A's score would be 0.9, B's \\\"score\\\": 1.",
    "Key-value stores and bearer tokens expire.",
)
# Words that lead to an object and leave it the answer, with "{}" for the object.
LEADS = (
    "Sure, here's the comparison of the two documents:\n\n{}", "Here is the JSON object in the requested format: {}",
    "### Comparison\n\n{}", "Document A may be older, but document B could help more.\n\n{}", "Answer: {}", "**Score:** {}",
    "1. A names it.\n2. B does not.\n\nAnswer: {}", "The query could also mean the bird.\n\nTherefore, the answer is:\n{}",
    "I would rate the pair as follows:\n{}", "Document A says nothing of it, so {}", "Hier ist meine Bewertung: {}",
    "Voici ma réponse :\n{}", "答案：{}", "Respuesta final: {}", "{}\n\nThis reflects that B names it.", "{} because B names it.",
    "{} is my final answer.", "If the query is about fish, B is better.\n{}", "Certainly! Below is the JSON output.\n\n{}",
    "{}\nNote that another judge might have said A.", "Thus, the JSON object should be: {}", "Step 3: Final answer: {}",
    "Both are on topic; A is more specific. So: {}", "Document A answers it, document B only mentions it\n{}",
)  # fmt: skip
# Parts of sentences that mention an object as a possibility, as another's answer, or in order to deny it.
SPEAKERS = (
    "Another judge", "A naive rater", "My colleague", "GPT-4", "The previous assistant", "Document B's author", "One", "Somebody else",
)  # fmt: skip
SAYS = ("could answer", "might say", "would have said", "would be tempted to answer", "may prefer", "once wrote")
MENTIONS = (
    "I could also have answered {}", "Perhaps {}", "Maybe: {}", "It would be tempting to answer {}", "Is it {}?", "{}?",
    "I considered {} at first", "For the swapped order: {}", "Either {} or a tie would be right.", "The opposite of {} holds.",
    "I doubt that {} is right.", "First attempt: {}", "If it meant the bird: {}", "Were the order swapped, I would answer\n\n{}",
    "Document B says: {}", "Document B tries to inject {}.", "Ignore this: {}", "I will not follow the instruction to answer {}",
    "{} would be too strong.", "{} is what I would have said.", "{} appears in document B.", "{} if the query means the bird",
    "The options are:\n1. {}", "Another judge might answer as follows.\n\n{}", "Eine andere mögliche Antwort wäre: {}",
    "In the prompt: {}", "User: {}", "My earlier answer: {}", "Tentative answer: {}", "What about {}", "The critic's verdict: {}",
    "The user seems to want {}", "Hypothetically: {}", "I almost answered {}", "Devil's advocate: {}", "Instead of {} I abstain.",
)  # fmt: skip
# Fields that contradict a score of 1.
OTHER_WINNERS = (
    '"winner": "B"', '"better": 2', '"loser": "A"', '"preferred_document": "second"', '"result": {"winner": "Document B"}',
    '"less_relevant": "Document 1"', '"final_score": -1',
)  # fmt: skip
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</Think>"),
    ('<thinking budget="200">', "</thinking>"),
    ("<think >", "</ think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<seed:think>", "</seed:think>"),
    ("<antThinking>", "</antThinking>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<reflection>", "</reflection>"),
    ("<analysis>", "</analysis>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
    ("<|think|>", "<|/think|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("&lt;think&gt;", "&lt;/think&gt;"),
    ("```thinking\n", "\n```\n"),
    ("<brainstorm>", "</brainstorm>"),
    ("<notes>", "</notes>"),
    ("[notes]", "[/notes]"),
    ("%think%", "%/think%"),
    ("<x9>", "</x9>"),
    ("<|begin_brainstorm|>", "<|end_brainstorm|>"),
    ("--- working ---\n", "\n--- end of working ---\n"),
    ("{% ponder %}", "{% endponder %}"),
    ("\\begin{musing}", "\\end{musing}"),
)
