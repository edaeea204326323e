"""Translatable texts that the source does not mark for gettext: plugin labels and options, states, stored sentences.

`manage.py makemessages` adds them to the catalogue; `labeling.wording.translated` translates them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from django.apps import apps
from django.conf import settings

from labeling.plugins import KINDS, Exporter, Plugin, load_plugins, registered
from labeling.stored_texts import stored_texts
from scoring.snapshots.freeze import SnapshotOptions
from workers.broker.routing import QUEUES
from workers.jobs.injection_probe import payloads
from workers.judging.failures import MEANINGS
from workers.runs.stages import STAGES
from zelo_site.pages.forms import option_label

# Third-party plugins have their own catalogue, or stay in English.
OURS = {"labeling", "scoring", "workers", "trainer", "zelo_site"}


def declared_texts() -> Iterator[str]:
    """Yield every text that `translated` may receive, with some duplicates."""
    load_plugins(enabled=settings.ZELO_PLUGINS)
    importlib.import_module("workers.tasks")
    # Together these import every module that declares a stored sentence.
    importlib.import_module(settings.ROOT_URLCONF)
    importlib.import_module("zelo_site.demo.student")
    importlib.import_module("scoring.snapshots.mixing")
    for kind in KINDS:
        for plugin in registered(kind).values():
            if plugin.__module__.partition(".")[0] in OURS:
                yield from _texts_of_plugin(plugin)
    yield from _texts_of_options(SnapshotOptions)
    yield from _labels_of_choices()
    yield from (kind.about for kind in QUEUES.values())
    yield from (meaning.label for meaning in MEANINGS.values())
    yield from (text for stage in STAGES for text in (stage.key, stage.label))
    yield from (payload.label for payload in payloads().values())
    yield from stored_texts()


def _texts_of_plugin(plugin: type[Plugin]) -> Iterator[str]:
    yield plugin.label
    if issubclass(plugin, Exporter) and plugin.format_help:
        yield plugin.format_help
    yield from _texts_of_options(plugin.Options)


def _texts_of_options(options: type) -> Iterator[str]:
    for name, info in options.model_fields.items():  # type: ignore[attr-defined]
        yield option_label(name, info)
        if info.description:
            yield info.description


def _labels_of_choices() -> Iterator[str]:
    for model in apps.get_models():
        if model.__module__.partition(".")[0] in OURS:
            for field in model._meta.fields:
                yield from (str(label) for _, label in field.flatchoices)
