"""Models of the site itself: personal settings that apply to all projects."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preferences(models.Model):
    """A user's settings on all devices."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE)
    language = models.CharField(max_length=10)
