"""Models of the site itself: personal settings that apply to all projects."""

from __future__ import annotations

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import models
from django.db.models.functions import Now

from labeling.models import Project


class Preferences(models.Model):
    """A user's settings on all devices."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE)
    language = models.CharField(max_length=10)


class SignInSession(models.Model):
    """From where and with which browser a session began; it goes with the session."""

    session = models.OneToOneField(Session, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    address = models.GenericIPAddressField(null=True)
    browser = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())


class SavedView(models.Model):
    """A view of a project's queries that a user has named; `address` holds its URL parameters."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=60)
    address = models.CharField(max_length=1000, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project", "name"], name="saved_view_once")]
