"""Encrypts the keys of stored endpoints: Fernet (AES-128-CBC with HMAC-SHA256) under a key that the database never holds.

The key is derived by HKDF-SHA256 from a secret of the installation. The first secret encrypts; all of them decrypt, so a
secret can be replaced in steps. What is encrypted is bound to a text, so that it cannot be moved to another row or address.
Imports no Django.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

PURPOSE = b"zelo: keys of stored endpoints, 1"


class EncryptionUnavailable(RuntimeError):
    """The package `cryptography` is not installed, or there is no secret to derive a key from."""


class SecretsUnreadable(ValueError):
    """The secrets were encrypted under another key, for another place, or were changed."""


def encrypt(values: Mapping[str, Any], *, bound_to: str, secrets: Sequence[str]) -> str:
    """The values, encrypted under the first secret for the place `bound_to`. Raises EncryptionUnavailable."""
    text = json.dumps({"for": bound_to, "values": dict(values)})
    return str(_fernet(secrets[:1]).encrypt(text.encode()).decode())


def decrypt(token: str, *, bound_to: str, secrets: Sequence[str]) -> dict[str, Any]:
    """The values that `encrypt` got for the same place. Raises EncryptionUnavailable or SecretsUnreadable."""
    fernet = _fernet(secrets)
    from cryptography.fernet import InvalidToken

    try:
        content = json.loads(fernet.decrypt(token.encode()))
    except InvalidToken:
        raise SecretsUnreadable("encrypted under another key") from None
    if content["for"] != bound_to:
        raise SecretsUnreadable("encrypted for another endpoint or address")
    values: dict[str, Any] = content["values"]
    return values


def _fernet(secrets: Sequence[str]) -> Any:
    """A MultiFernet of the keys derived from these secrets."""
    if not secrets:
        raise EncryptionUnavailable("there is no secret to encrypt with; set ZELO_SECRET_KEY or ZELO_ENDPOINTS_KEY")
    try:
        from cryptography.fernet import Fernet, MultiFernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise EncryptionUnavailable(
            "the package cryptography, which encrypts keys, is not installed; run pip install -r requirements.txt"
        ) from None

    def key_of(secret: str) -> bytes:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(secret.encode())
        return base64.urlsafe_b64encode(derived)

    return MultiFernet([Fernet(key_of(secret)) for secret in secrets])
