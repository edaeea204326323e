"""The audit log: who changed what in a project, or on the server.

`labeling.audit.note` writes the entries, inside the verbs. A trigger of the database refuses to change or delete one.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models

from labeling.models.projects import Membership, Project, Role, Viewer, VisibleQuerySet


class ClockTimestamp(models.Func):
    """The database's clock at this moment; `Now` is that of the transaction's start."""

    function = "CLOCK_TIMESTAMP"
    template = "%(function)s()"
    output_field = models.DateTimeField()


class AuditQuerySet(VisibleQuerySet["AuditEntry"]):
    def visible_to(self, user: Viewer) -> AuditQuerySet:
        """Entries of the projects that `user` owns; superusers see all, those without a project too."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if getattr(user, "is_superuser", False):
            return self.all()
        owned = Membership.objects.filter(user_id=user.pk, role=Role.OWNER).values("project_id")
        return self.filter(project__in=owned)


class AuditEntry(models.Model):
    """One action: what was done, to what, by whom, when.

    The names stay when the account or the project is deleted; the database then clears the reference. `actor_name` is
    empty where the program or a command on the server acted.
    """

    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.SET_NULL, related_name="audit")
    project_name = models.CharField(max_length=200, blank=True, default="", db_default="")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    actor_name = models.CharField(max_length=150, blank=True)
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=200, blank=True)
    details = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(db_default=ClockTimestamp())

    objects = AuditQuerySet.as_manager()

    class Meta:
        db_table = "workers_auditentry"  # where the first installations have it
        verbose_name_plural = "audit entries"
        ordering = ["-id"]
        indexes = [models.Index(fields=["project", "-id"], name="audit_by_project")]
