"""Signatures of webhooks as the Standard Webhooks specification (standardwebhooks.com) has them. Imports no Django.

The signed text is "ID.TIMESTAMP.BODY"; the header `webhook-signature` is "v1," and the base64 of its HMAC-SHA256. A receiver
refuses old timestamps, so that a message cannot be sent to it again later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

PREFIX = "whsec_"


def make_secret() -> str:
    """A new secret of 32 random bytes, as receivers take it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signed_headers(secret: str, *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message; `timestamp` in seconds since 1970."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
