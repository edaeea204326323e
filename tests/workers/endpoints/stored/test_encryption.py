"""Keys at rest: only who has a secret of the installation reads them, and only for the place they were stored for."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from workers.endpoints.stored.encryption import EncryptionUnavailable, SecretsUnreadable, decrypt, encrypt

OLD, NEW = "old-secret-" + "o" * 32, "new-secret-" + "n" * 32
VALUES = {"key": "sk-very-secret", "headers": {"x-gateway": "hush"}}


def test_values_come_back_under_any_of_the_secrets_and_the_first_one_encrypts() -> None:
    token = encrypt(VALUES, bound_to="openai https://a:443", secrets=[OLD])
    assert "sk-very-secret" not in token and "hush" not in token
    assert decrypt(token, bound_to="openai https://a:443", secrets=[NEW, OLD]) == VALUES
    again = encrypt(VALUES, bound_to="openai https://a:443", secrets=[NEW, OLD])
    assert decrypt(again, bound_to="openai https://a:443", secrets=[NEW]) == VALUES
    assert encrypt(VALUES, bound_to="x", secrets=[OLD]) != encrypt(VALUES, bound_to="x", secrets=[OLD])


def test_another_key_another_place_and_a_changed_text_are_refused() -> None:
    token = encrypt(VALUES, bound_to="openai https://a:443", secrets=[OLD])
    with pytest.raises(SecretsUnreadable, match="another key"):
        decrypt(token, bound_to="openai https://a:443", secrets=[NEW])
    with pytest.raises(SecretsUnreadable, match="another endpoint or address"):
        decrypt(token, bound_to="openai https://evil:443", secrets=[OLD])
    middle = len(token) // 2
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    with pytest.raises(SecretsUnreadable):
        decrypt(changed, bound_to="openai https://a:443", secrets=[OLD])


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncryptionUnavailable, match="set ZELO_SECRET_KEY"):
        encrypt(VALUES, bound_to="x", secrets=[])
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EncryptionUnavailable, match="pip install -r requirements"):
        encrypt(VALUES, bound_to="x", secrets=[OLD])
