"""The audit log. `workers.audit` writes it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from labeling.models import Membership, Project, Role, Viewer, VisibleQuerySet
from workers.models.clock import ClockTimestamp


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
    """One deed that somebody may ask about later. Written by `workers.audit.note`, changed by nothing.

    `actor_name` stays when the account goes; both are empty where the program or a command did it.
    """

    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.SET_NULL, related_name="audit")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    actor_name = models.CharField(max_length=150, blank=True)
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=200, blank=True)
    details = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(db_default=ClockTimestamp())

    objects = AuditQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]
        indexes = [models.Index(fields=["project", "-id"], name="audit_by_project")]
