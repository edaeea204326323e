"""The form of a format's options in the import preview; a table's column mapping is guessed and can be corrected.

The values belong to one file: `for_file` names it, so that another file starts from its own guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from django import forms
from django.utils.translation import gettext as _

from labeling.importing.detection import AUTO, columns_of, detect_source, guessed_columns
from labeling.importing.formats import DatasetsFolder, Preferences, RowError
from labeling.importing.formats.answers.preferences import COLUMN_OPTIONS, guessed_options
from labeling.importing.formats.tables.columns import NONE, ROLES
from labeling.importing.formats.tables.table import Table
from labeling.plugins import Plugin, get_plugin
from zelo_site.pages.forms import OptionsForm, plugin_form

PREFIX = "format"
# The installation's limits, and what the form of the page has already.
HIDDEN = ("max_line_bytes", "max_total_bytes")
FOR_FILE = "format_for_file"


def importer_of(stream: IO[bytes], name: str, chosen: str) -> str:
    """The chosen importer, or the one that recognises the file."""
    return detect_source(stream, name) if chosen == AUTO else chosen


def chosen_options(sent: Mapping[str, Any], importer: str, file: str) -> dict[str, Any]:
    """The submitted options of the format, if they are those of this file. Raises BadForm, UnknownPlugin."""
    if sent.get(FOR_FILE) != file_key(importer, file):
        return {}
    form = _form_class(get_plugin("importer", importer), [])(sent)
    values = form.plain_options()
    return {name: value for name, value in values.items() if name not in HIDDEN}


def file_key(importer: str, file: str) -> str:
    """The key that ties submitted options to a file."""
    return f"{importer}:{file}"


def options_shown(stream: IO[bytes], importer: str, given: Mapping[str, Any]) -> OptionsForm | None:
    """The form of the format's options with the `given` values; None for a format without options of its own."""
    plugin = get_plugin("importer", importer)
    columns = columns_of(stream) if _column_options(plugin) else []
    values = dict(given)
    if columns and issubclass(plugin, Preferences):
        values |= guessed_options(columns, values)
    elif columns:
        with suppress(RowError):  # the preview shows it; the form lets people name the columns
            values |= guessed_columns(columns, {role: values.get(role, "") for role in ROLES})
    form = _form_class(plugin, columns)(initial=values)
    return form if form.fields else None


def has_columns(importer: str) -> bool:
    """Whether the form of the format's options is a column mapping."""
    return bool(_column_options(get_plugin("importer", importer)))


def _column_options(plugin: type[Plugin]) -> Sequence[str]:
    """The options of a format that name a column of one file."""
    if issubclass(plugin, Preferences):
        return tuple(COLUMN_OPTIONS.values())
    return ROLES if issubclass(plugin, Table) and not issubclass(plugin, DatasetsFolder) else ()


def _form_class(plugin: type[Plugin], columns: list[str]) -> type[OptionsForm]:
    form = plugin_form(plugin, prefix=PREFIX)
    fields = {name: field for name, field in form.base_fields.items() if name not in HIDDEN}
    for role in _column_options(plugin) if columns else ():
        if role in fields:
            choices = [(NONE, _("no column")), *((each, each) for each in columns)]
            fields[role] = forms.ChoiceField(choices=choices, label=fields[role].label, required=False)
    form.base_fields = fields
    return form
