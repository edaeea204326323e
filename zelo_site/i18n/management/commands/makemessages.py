"""`makemessages`, with the texts that no source marks: labels and options of plugins, states, stored sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands import makemessages

from zelo_site.i18n.declared_texts import declared_texts


class Command(makemessages.Command):
    # A guess from a like sentence is wrong more often than right, and has to be found before it can be mended.
    msgmerge_options = [*makemessages.Command.msgmerge_options, "--no-fuzzy-matching"]

    def add_arguments(self, parser: CommandParser) -> None:
        """Django's, with what this catalogue is kept in: files without line numbers, long lines, nothing obsolete."""
        super().add_arguments(parser)
        parser.set_defaults(add_location="file", no_wrap=True, no_obsolete=True, locale=["de"])

    def process_files(self, file_list: list[Any]) -> None:
        """Django's; the declared texts follow, of which `msguniq` merges those that a source marks too."""
        super().process_files(file_list)
        for folder in self.locale_paths:
            template = Path(folder) / f"{self.domain}.pot"
            with template.open("a", encoding="utf-8") as stream:
                for text in dict.fromkeys(declared_texts()):
                    stream.write(f'\n#: zelo_site/i18n/declared_texts.py\nmsgid {_quoted(text)}\nmsgstr ""\n')

    def write_po_file(self, potfile: str, locale: str) -> None:
        """Django's, without the hour of the template, which would differ each time."""
        super().write_po_file(potfile, locale)
        catalogue = Path(potfile).parent / locale / "LC_MESSAGES" / f"{self.domain}.po"
        lines = catalogue.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(('"POT-Creation-Date:', '"Report-Msgid-Bugs-To:'))]
        catalogue.write_text("".join(kept), encoding="utf-8")


def _quoted(text: str) -> str:
    """As a catalogue writes a string: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
