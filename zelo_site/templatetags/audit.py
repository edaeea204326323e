"""The actions of the audit log in words."""

from __future__ import annotations

from django import template
from django.utils.translation import gettext_lazy as _

register = template.Library()

ACTION_LABELS = {
    "project.created": _("Project created"),
    "project.changed": _("Settings changed"),
    "project.caps": _("Caps changed"),
    "data.imported": _("Data imported"),
    "grades.replaced": _("Grades replaced"),
    "judgments.replaced": _("Imported judgments replaced"),
    "candidates.ordered": _("Candidates ordered"),
    "recording.uploaded": _("Recorded answers uploaded"),
    "run.started": _("Run started"),
    "run.paused": _("Run paused"),
    "run.resumed": _("Run resumed"),
    "run.cancelled": _("Run cancelled"),
    "run.budget": _("Budget changed"),
    "tasks.requeued": _("Failed questions retried"),
    "distillation.ordered": _("Distilled run ordered"),
    "distillation.resumed": _("Distilled run resumed"),
    "distillation.cancelled": _("Distilled run cancelled"),
    "batch.cancelled": _("Batch cancelled"),
    "calibration.ordered": _("Calibration ordered"),
    "judge.paused": _("Judge paused"),
    "judge.resumed": _("Judge resumed"),
    "trial.ordered": _("Test of a judge ordered"),
    "teaching.ordered": _("Teaching of a judge ordered"),
    "teaching.cancelled": _("Teaching of a judge cancelled"),
    "probe.ordered": _("Injection probe ordered"),
    "endpoint.added": _("Endpoint added"),
    "endpoint.changed": _("Endpoint changed"),
    "endpoint.tested": _("Endpoint tested"),
    "endpoint.retired": _("Endpoint retired"),
    "endpoint.restored": _("Endpoint brought back"),
    "endpoint.keys_rotated": _("Endpoint keys encrypted again"),
    "snapshot.frozen": _("Snapshot frozen"),
    "training.ordered": _("Training ordered"),
    "training.resumed": _("Training resumed"),
    "training.cancelled": _("Training cancelled"),
    "evaluation.ordered": _("Evaluation ordered"),
    "reranker.published_anyway": _("Held-back reranker published"),
    "reranker.entered": _("Reranker entered"),
    "scores.exported": _("Scores exported"),
    "judgments.exported": _("Judgments exported"),
    "texts.exported": _("Texts exported"),
    "member.invited": _("Invitation made"),
    "member.invitation_revoked": _("Invitation revoked"),
    "member.joined": _("Member joined by link"),
    "member.role": _("Role changed"),
    # Older entries have it; today each change is an entry of its own.
    "member.changed": _("Member changed"),
    "member.quota": _("Quota changed"),
    "member.paused": _("Member paused"),
    "member.resumed": _("Member resumed"),
    "member.removed": _("Member removed"),
    "people.rules": _("Rules for people changed"),
    "spot_checks.planned": _("Spot checks planned"),
    "spot_checks.withdrawn": _("Spot checks withdrawn"),
    "pair.gold": _("Gold set"),
    "pair.gold_removed": _("Gold removed"),
    "pair.adjudicated": _("Pair adjudicated"),
    "pair.adjudication_undone": _("Adjudication undone"),
    "key.made": _("API key made"),
    "key.revoked": _("API key revoked"),
    "account.signed_in": _("Signed in"),
    "account.link_made": _("Sign-in link made"),
    "account.password_set": _("Password set"),
}


@register.filter
def action_label(action: str) -> str:
    """The action in words; an unknown one, of a plugin or an older release, as it is stored."""
    return str(ACTION_LABELS.get(action, action))
