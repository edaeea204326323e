"""Only what the operator lists can be called, whatever a name resolves to."""

from __future__ import annotations

import pytest

from workers.webhooks.addresses import AddressRefused, BadEntry, check_url, find_target, parse_entries
from workers.webhooks.signing import signed_headers

LISTED = parse_entries(["hooks.example.org", "*.ci.example.org:8443", "127.0.0.1:9000", "10.2.0.0/16", "[::1]:9000"])


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/zelo?a=b",
        "http://hooks.example.org./",
        "https://a.b.ci.example.org:8443/",
        "http://127.0.0.1:9000/hook",
        "http://[::1]:9000/",
        "http://10.2.3.4/",
    ],
)
def test_listed_addresses_are_permitted(url: str) -> None:
    check_url(url, LISTED)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://hooks.example.org:8443/", "hooks.example.org:8443 to ZELO_WEBHOOK_HOSTS"),
        ("https://example.org/", "add example.org"),
        ("https://evilci.example.org:8443/", "add evilci"),
        ("https://hooks.example.org@10.0.0.1/", "user"),
        ("http://127.0.0.1/", "add 127.0.0.1"),
        ("http://2130706433:9000/", "add 2130706433"),
        ("http://0x7f.1:9000/", "add 0x7f.1"),
        ("ftp://hooks.example.org/", "http or https"),
        ("https:///x", "http or https"),
        ("https://hooks.example.org/\r\nX: y", "plain URL"),
        ("https://hooks.example.org:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://hooks.example.org/" + "a" * 2000, "2000"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(url: str, named: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        check_url(url, LISTED)
    assert named in str(refused.value)
    with pytest.raises(AddressRefused):
        check_url("https://hooks.example.org/", [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.3.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "fd00::1",
        "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "100.64.0.1",
        "fec0::1", "::7f00:1", "64:ff9b:1::7f00:1",
    ],
)  # fmt: skip
def test_a_listed_name_reaches_public_addresses_only(address: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", address]

    with pytest.raises(AddressRefused, match="not a public address"):
        find_target("https://hooks.example.org/", LISTED, resolve=resolve)


def test_a_private_address_is_reached_where_it_is_listed_too() -> None:
    found = find_target("https://hooks.example.org/", LISTED, resolve=lambda host, port: ["10.2.0.7", "1.1.1.1"])
    assert (found.host, found.port, found.addresses) == ("hooks.example.org", 443, ("10.2.0.7", "1.1.1.1"))


@pytest.mark.parametrize(
    "entry", ["http://a.org", "a.org:0", "a.org:99999", "a b", "300.1.1.1", "10.0.0.0/99", "*", ""]
)
def test_a_bad_entry_is_named(entry: str) -> None:
    with pytest.raises(BadEntry, match="not a host, address or network"):
        parse_entries([entry])


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The example of standardwebhooks.com's reference libraries."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
