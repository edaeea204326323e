"""Texts that are declared or stored in English, in the visitor's language: labels of plugins and states, reasons.

Templates and page code mark their own texts for gettext. What is declared without Django (a plugin's label, an option's
help) or was stored (why a run ended) is translated here, when it is shown.
"""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import get_language, gettext

from labeling.stored_texts import stored_texts


def translated(text: str) -> str:
    """The text in the language of the request; one that nobody declared or translated stays as it is."""
    if not text or get_language() == settings.LANGUAGE_CODE:
        return text
    exact = gettext(text)
    if exact != text:
        return exact
    for sentence, pattern in stored_texts().items():
        if found := pattern.fullmatch(text):
            return gettext(sentence) % found.groupdict()
    return text
