"""`makemessages`, including texts that the source does not mark: labels and options of plugins, states, stored sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands import makemessages

from zelo_site.declared_texts import declared_texts


class Command(makemessages.Command):
    # Fuzzy matches are wrong more often than right, and hard to find afterwards.
    msgmerge_options = [*makemessages.Command.msgmerge_options, "--no-fuzzy-matching"]

    def add_arguments(self, parser: CommandParser) -> None:
        """Django's makemessages with this catalogue's format: no line numbers, long lines, no obsolete entries."""
        super().add_arguments(parser)
        parser.set_defaults(add_location="file", no_wrap=True, no_obsolete=True, locale=["de"])

    def process_files(self, file_list: list[Any]) -> None:
        """Append the declared texts to Django's; `msguniq` merges the duplicates."""
        super().process_files(file_list)
        for folder in self.locale_paths:
            template = Path(folder) / f"{self.domain}.pot"
            with template.open("a", encoding="utf-8") as stream:
                for text in dict.fromkeys(declared_texts()):
                    stream.write(f'\n#: zelo_site/declared_texts.py\nmsgid {_quoted(text)}\nmsgstr ""\n')

    def write_po_file(self, potfile: str, locale: str) -> None:
        """Remove the creation date, which would change on every run."""
        super().write_po_file(potfile, locale)
        catalogue = Path(potfile).parent / locale / "LC_MESSAGES" / f"{self.domain}.po"
        lines = catalogue.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(('"POT-Creation-Date:', '"Report-Msgid-Bugs-To:'))]
        catalogue.write_text("".join(kept), encoding="utf-8")


def _quoted(text: str) -> str:
    """Quote a string for a catalogue; JSON's escapes are valid there."""
    return json.dumps(text, ensure_ascii=False)
