"""What belongs to the site alone: choices that people make for themselves, in whatever project they are."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preferences(models.Model):
    """What a person chose for themselves on all devices."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE)
    language = models.CharField(max_length=10)
