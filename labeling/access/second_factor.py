"""A second factor of sign-in: codes of an authenticator app (TOTP), and backup codes that each work once.

django-otp keeps the devices, refuses a code that was used before, and makes whoever guesses wait longer each time. Which
accounts must have one is a setting of the site, which also asks for the code; API keys need none.
"""

from __future__ import annotations

import secrets
from typing import Any

import django_otp
from django.db import transaction
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from labeling import audit

CODES = 10


class WrongCode(ValueError):
    """The code is wrong, was used before, or came too soon after wrong ones."""

    def __init__(self) -> None:
        super().__init__(
            "the code is wrong, or was used before; wait for the next one. After wrong codes, wait a little longer each time"
        )


def has_second_factor(user: Any) -> bool:
    """Whether the account asks for a code at sign-in."""
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def new_device(user: Any) -> TOTPDevice:
    """The device that the user is about to set up; the same until `turn_on` confirms it."""
    device, _made = TOTPDevice.objects.get_or_create(user=user, confirmed=False, defaults={"name": "authenticator app"})
    found: TOTPDevice = device
    return found


@transaction.atomic
def turn_on(user: Any, code: str, *, by: Any = None) -> list[str]:
    """Confirm the new device with a code of the app; returns the backup codes, which cannot be read later. Raises WrongCode."""
    device = TOTPDevice.objects.select_for_update().filter(user=user, confirmed=False).first()
    if device is None or has_second_factor(user) or not device.verify_token(code):
        raise WrongCode
    device.confirmed = True
    device.save()
    audit.note("account.second_factor_on", project=None, actor=by, subject=user.get_username())
    return _new_codes(user)


def check_code(user: Any, code: str) -> None:
    """Use up a code of the app, or a backup code. Raises WrongCode; the waiting time after it is stored all the same."""
    if django_otp.match_token(user, code.replace(" ", "")) is None:
        raise WrongCode


@transaction.atomic
def replace_codes(user: Any, *, by: Any = None) -> list[str]:
    """New backup codes in place of all earlier ones; the caller has checked a code."""
    audit.note("account.backup_codes", project=None, actor=by, subject=user.get_username())
    return _new_codes(user)


@transaction.atomic
def turn_off(user: Any, *, by: Any = None) -> bool:
    """Remove the user's devices and backup codes; whether there were any."""
    had = has_second_factor(user)
    TOTPDevice.objects.filter(user=user).delete()
    StaticDevice.objects.filter(user=user).delete()
    if had:
        audit.note("account.second_factor_off", project=None, actor=by, subject=user.get_username())
    return had


def codes_left(user: Any) -> int:
    """The number of unused backup codes."""
    return sum(device.token_set.count() for device in StaticDevice.objects.filter(user=user))


def _new_codes(user: Any) -> list[str]:
    device, _made = StaticDevice.objects.get_or_create(user=user, defaults={"name": "backup codes"})
    device.token_set.all().delete()
    codes = [secrets.token_hex(5) for _ in range(CODES)]
    for code in codes:
        device.token_set.create(token=code)
    return codes
