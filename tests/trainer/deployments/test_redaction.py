"""What is removed from texts before they are stored, and what is not."""

from __future__ import annotations

import pytest

from trainer.deployments.redaction import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to emmy.noether+x@example.co.uk today", "write to [email] today"),
        ("card 4111 1111 1111 1111.", "card [card]."),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [account] please"),
        ("call +49 (0) 30 901820 or 0049-30-901820", "call [phone] or [phone]"),
        ("call (212) 555-0187 now", "call [phone] now"),
        ("call 0171 1234567, 030/90182-0 or (030) 90 18 20", "call [phone], [phone] or [phone]"),
        ("from 2001:db8::ff00:42:8329 and fe80::1 it failed", "from [ip] and [ip] it failed"),
        ("at 2a02:908:1234:5678:9abc:def0:1234:5678.", "at [ip]."),
        ("from 192.168.10.254 it failed", "from [ip] it failed"),
        ("key zelo_Abcdefghijklmnop1234 leaked", "key [secret] leaked"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [secret]"),
        ("token eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.sig", "token [secret]"),
    ],
)
def test_personal_data_and_secrets_are_replaced(text: str, expected: str) -> None:
    found, count = redacted(text)
    assert found == expected and count == expected.count("[")


@pytest.mark.parametrize(
    "text",
    [
        "order 4111 1111 1111 1112 is no card",  # fails the check of card numbers
        "version 1.2.3 of 2026-11-29, 10.5 km, 1,000,000 fish",
        "section 3.1.4.1.5 of the manual",
        "ISBN 978-3-16-148410-0",
        "from 1914 to 1918, pages 100-200",
        "the ratio a/b@c has no dot",
        "Room 256.300.1.1 is no address",
        "DE20",
        "std::vector, f00::bar, 2024: 10:11:12 and 2031:12:01",
        "0.171 1234567, 007, 01-01-2024 and 0800",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redacted(text) == (text, 0)


def test_redacting_twice_changes_nothing_more() -> None:
    once, _ = redacted("emmy@example.org 192.168.0.1 +49 30 901820")
    assert redacted(once) == (once, 0)
