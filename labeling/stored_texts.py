"""Sentences that are stored in the database in English and read on pages: why a run ended, why a judge is paused.

Each is declared once where it is written; pages find the declaration again and say it in the visitor's language
(`labeling.wording`). The alternative, a code and its values in columns of their own, would need a migration for each
sentence and would leave those stored earlier in English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_declared: dict[str, re.Pattern[str]] = {}


def stored_text(sentence: str) -> str:
    """Declare a sentence, in which `%(name)s` stands for what varies; it is returned as it is, to be filled in by %."""
    parts = re.split(r"%\((\w+)\)s", sentence)
    _declared[sentence] = re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)), re.DOTALL
    )
    return sentence


def stored_texts() -> Mapping[str, re.Pattern[str]]:
    """Every sentence declared so far, with the pattern that finds it again in what was stored."""
    return _declared
