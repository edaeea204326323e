"""The sections that let somebody repeat the figures: settings, judges' configurations, versions and checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, Project
from scoring.models import Snapshot
from scoring.snapshots.lineage import software
from trainer.models import Reranker
from zelo_site.pages.rerankers.proof import named_with_release
from zelo_site.report.document import Block, Facts, Line, Section, Table, numbers, words
from zelo_site.templatetags.figures import count


def settings_section(project: Project, snapshot: Snapshot | None) -> Section:
    """Return the options of the project, of its judges and of the snapshot."""
    rows = [
        (_("rater"), project.rater),
        (_("rater options"), _json(project.rater_options)),
        (_("instruction"), project.instruction or "–"),
        (_("criteria"), _json(project.rubric) if project.rubric else "–"),
    ]
    if snapshot is not None:
        rows.append((_("snapshot options"), _json(snapshot.manifest.get("options", {}))))
    judges = Annotator.objects.judges().filter(project=project).order_by("id")
    names = names_told_apart(project)
    lines = tuple(
        Line(
            names[each.pk], (each.plugin, each.model_revision or "–", each.prompt_hash[:12] or "–", _json(each.options))
        )
        for each in judges
    )
    head = words(_("plugin"), _("model revision"), _("prompt hash"), _("options"))
    blocks: list[Block] = [Facts(tuple(rows))]
    return Section(
        "settings", _("Settings"), (*blocks, *((Table(_("Judges"), _("judge"), head, lines),) if lines else ()))
    )


def versions_section(project: Project, snapshots: list[Snapshot]) -> Section:
    """Return software versions, and the checksums of snapshots and published rerankers."""
    sums = [(named(each, snapshots), each.checksum) for each in snapshots]
    names = {name for name, __ in sums}
    sums += [
        (_named_beside(each, names), each.checksum)
        for each in Reranker.objects.filter(project=project)
        .exclude(checksum="")
        .order_by("id")
        .only("name", "kind", "checksum", "release")
    ]
    blocks: list[Block] = [Facts(tuple(sorted(software().items())), title=_("Software"))]
    if sums:
        blocks.append(Facts(tuple(sums), title=_("SHA-256 checksums"), is_code=True))
    return Section("versions", _("Versions and checksums"), tuple(blocks))


def _named_beside(reranker: Reranker, names: set[str]) -> str:
    """Return the reranker's name, with its kind where a snapshot has the same, and whether the gate held it back."""
    name = named_with_release(reranker)
    return f"{name} ({_('reranker')})" if name in names else name


def named(snapshot: Snapshot, beside: Sequence[Snapshot]) -> str:
    """Return the snapshot's name, with its number where another one of `beside` has the same."""
    is_shared = any(each.name == snapshot.name and each.pk != snapshot.pk for each in beside)
    return f"{snapshot.name} ({snapshot.pk})" if is_shared else snapshot.name


def snapshots_section(before: Snapshot, after: Snapshot) -> Section:
    """Return the two snapshots' figures side by side."""
    columns = [_figures(each) for each in (before, after)]
    lines = tuple(Line(name, (columns[0][name], columns[1][name])) for name in columns[0])
    table = Table("", _("figure"), numbers(named(before, [after]), named(after, [before])), lines)
    return Section("snapshots", _("Snapshots side by side"), (table,))


def _figures(snapshot: Snapshot) -> dict[str, str]:
    manifest: dict[str, Any] = snapshot.manifest
    projects, domains = manifest.get("projects", []), manifest.get("domains", [])
    calibrations = [each["calibration"]["version"] for each in projects if each.get("calibration")]
    found = {
        _("frozen"): f"{snapshot.created_at:%Y-%m-%d %H:%M}",
        _("rows"): count(snapshot.rows),
        _("answers"): count(sum(each["judgments"] for each in projects)),
        _("annotators"): count(sum(len(each["judges"]) for each in projects)),
        _("rater"): ", ".join(sorted({each["fit"]["rater"] for each in projects})) or "–",
        _("calibration version"): ", ".join(map(str, calibrations)) or "–",
    }
    for split in ("train", "dev", "test", "heldout"):
        queries = sum(each["queries"] for each in domains if each["split"] == split)
        found[_("queries in %(split)s") % {"split": split}] = count(queries)
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else "–"
