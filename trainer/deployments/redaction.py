"""Replaces personal data and secrets in texts before they are stored, as a pure function. Imports no Django.

It finds what has a form of its own: addresses of mail, keys, numbers of cards, accounts and telephones, IP addresses. It
does not find names, which only the operator can judge: logging is off until an owner switches it on.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
# Addresses in use begin with 2 or 3, or locally with f; a time or a name of a program with colons does not.
_IPV6 = re.compile(r"(?<![\w:.])[23fF][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])")
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("[email]", re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")),
    ("[secret]", re.compile(r"\b(?:zelo_|sk-|pk-|ghp_|github_pat_|xox[abp]-|hf_|AKIA)[\w-]{12,}")),
    ("[secret]", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")),  # JSON Web Tokens
    ("[secret]", re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{12,}")),
    ("[account]", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("[ip]", re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")),
    ("[phone]", re.compile(r"(?<![\w+.-])(?:\+|00)\d{1,3}[ ./-]?(?:\(0\) ?)?(?:\(\d{1,5}\)|\d)[\d ./-]{5,14}\d\b")),
    ("[phone]", re.compile(r"(?<![\w+.-])\(?0\d{2,4}(?:\) ?|[ /-]{1,3})\d[\d ./-]{4,12}\d\b")),
    ("[phone]", re.compile(r"(?<![\w+.-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}\b")),
)


def redacted(text: str) -> tuple[str, int]:
    """The text with placeholders such as [email], and how many there are."""
    found = 0

    def counting(replace: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
        def replaced(match: re.Match[str]) -> str:
            nonlocal found
            new = replace(match.group())
            found += new != match.group()
            return new

        return replaced

    text = _CARD.sub(counting(lambda digits: "[card]" if _is_card(digits) else digits), text)
    text = _IPV6.sub(counting(lambda found: "[ip]" if _is_ipv6(found) else found), text)
    for placeholder, pattern in _PATTERNS:
        text = pattern.sub(counting(lambda _, placeholder=placeholder: placeholder), text)  # type: ignore[misc]
    return text, found


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_card(text: str) -> bool:
    """Whether digits pass the check of card numbers (Luhn)."""
    digits = [int(each) for each in text if each.isdigit()][::-1]
    doubled = [each * 2 - 9 * (each > 4) for each in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
