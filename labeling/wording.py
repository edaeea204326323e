"""Translates texts that are declared or stored in English: labels of plugins and states, stored sentences.

Templates and page code mark their own texts for gettext. Labels of plugins and help texts of options are declared in
modules without Django; stored sentences contain their msgid and parameters (`labeling.stored_texts`).
"""

from __future__ import annotations

import re

from django.conf import settings
from django.utils.translation import get_language, gettext

from labeling.stored_texts import StoredText, read_stored

PARAMETER = re.compile(r"%\((\w+)\)s")


def translated(text: object) -> str:
    """Return the text in the language of the request; a text without a translation stays English."""
    said = text if isinstance(text, StoredText) else read_stored(text)
    if not said or get_language() == settings.LANGUAGE_CODE:
        return str(said)
    if isinstance(said, StoredText) and said.params:
        return gettext(said.msgid) % said.params
    return gettext(said)


def translated_name(name: str, *sentences: StoredText) -> str:
    """Return a name made from one of the single-parameter `sentences` in the visitor's language."""
    for sentence in sentences:
        before, parameter, after = PARAMETER.split(sentence.msgid)
        if name.startswith(before) and name.endswith(after):
            return gettext(sentence.msgid) % {parameter: name[len(before) : len(name) - len(after)]}
    return translated(name)
