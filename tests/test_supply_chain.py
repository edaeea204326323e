"""The lock files hold every requirement, in the version that is required, with hashes; the audit tells findings from no answer."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from tests.audit_requirements import audit

ROOT = Path(__file__).resolve().parent.parent
OF_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)\Z")


def pinned(name: str) -> dict[str, str]:
    """Package to version of a requirements file, those of the files that it includes as well."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= pinned(line.removeprefix("-r ").strip())
        elif match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line):
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_holds_every_requirement_with_hashes(name: str) -> None:
    wanted, locked = pinned(f"{name}.txt"), pinned(f"{name}.lock")
    missing = {package: version for package, version in wanted.items() if locked.get(package) != version}
    assert set(missing) == {"torch"}, "run `make lock`"
    blocks = re.split(r"\n(?=[A-Za-z])", (ROOT / f"{name}.lock").read_text())
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert [package for package in locked if OF_TORCH.match(package)] == []


def test_locked_packages_of_the_tests_are_those_of_the_product() -> None:
    product, tests = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert {package: tests.get(package) for package in product} == product


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages have no known vulnerability"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: CVE-1, fixed in 2",
        ),
        (
            '{"dependencies": [{"name": "a", "skip_reason": "a was not found"}, {"name": "b", "version": "1", "vulns": []}]}',
            0,
            "1 packages were not looked up: a\n1 packages have no known vulnerability",
        ),
        ('{"dependencies": [{"name": "a", "skip_reason": "a was not found"}]}', 0, "skipped: no package was looked up"),
        ("", 0, "skipped: the database of vulnerabilities cannot be read: no route to host"),
    ],
)
def test_the_audit_fails_for_findings_and_skips_without_an_answer(
    answer: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\necho 'no route to host' >&2\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert audit(str(program)) == code
    assert said in capsys.readouterr().out
