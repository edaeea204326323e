"""Settings from the environment: a value that cannot be used fails `manage.py check` with a remedy, without a traceback."""

from __future__ import annotations

from tests.processes.installation import manage

WRONG = {
    "ZELO_KEEP_DAYS": ("judgments=1", "ZELO_KEEP_DAYS holds 'judgments=1'"),
    "ZELO_MAX_LINE_MB": ("nan", "set ZELO_MAX_LINE_MB to a number above 0"),
    "ZELO_MAX_IMPORT_MB": ("much", "ZELO_MAX_IMPORT_MB is 'much', not a number of megabytes"),
    "ZELO_LOG_LEVEL": ("loud", "set ZELO_LOG_LEVEL to one of DEBUG, INFO"),
    "DATABASE_URL": ("postgresql://u:secret@host:port/name", "DATABASE_URL is not the address of a database"),
    "ZELO_SECRET_KEY": ("short", "unset ZELO_SECRET_KEY"),
}


def test_every_wrong_value_is_named_with_its_remedy(environment: dict[str, str]) -> None:
    check = manage({**environment, **{name: value for name, (value, _) in WRONG.items()}}, "check")
    output, _ = check.communicate(timeout=60)
    assert check.returncode == 1, output
    assert [words for _, words in WRONG.values() if words not in output] == []
    assert "Traceback" not in output
    assert "secret@" not in output


def test_usable_values_pass_the_check(environment: dict[str, str]) -> None:
    check = manage({**environment, "ZELO_MAX_LINE_MB": "0.5", "ZELO_LOG_LEVEL": "debug"}, "check")
    output, _ = check.communicate(timeout=60)
    assert check.returncode == 0, output
