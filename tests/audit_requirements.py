"""Looks for known vulnerabilities of the locked packages: `python -m tests.audit_requirements PIP_AUDIT`, from `make test-all`.

It fails with a list of what was found. Where the database of vulnerabilities cannot be reached it says so and does not fail:
a machine without a network still runs the tests. A package that was not looked up, as on a mirror that has packages but no
advisories, counts as unknown and never as free of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300
# Vulnerabilities that do not concern zelo: their id, and the reason.
IGNORED: dict[str, str] = {}


def audit(program: str) -> int:
    """The exit code: 1 with vulnerabilities, 0 without, or where they cannot be looked up."""
    command = [program, "--disable-pip", "--require-hashes", "-r", str(ROOT / "requirements.lock"), "-f", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"skipped: the database of vulnerabilities cannot be read: {_reason(done.stderr)}")
        return 0
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"skipped: pip-audit did not run: {error}")
        return 0
    unknown = {each["name"]: each["skip_reason"] for each in found if "skip_reason" in each}
    if found and len(unknown) == len(found):
        print(f"skipped: no package was looked up: {next(iter(unknown.values()))}")
        return 0
    bad = [(each["name"], each["version"], one) for each in found for one in each.get("vulns", ())]
    bad = [each for each in bad if each[2]["id"] not in IGNORED]
    for name, version, one in bad:
        fixed = ", ".join(one.get("fix_versions", ())) or "no release"
        print(f"{name} {version}: {one['id']}, fixed in {fixed}")
    if unknown:
        print(f"{len(unknown)} packages were not looked up: {', '.join(sorted(unknown))}")
    if not bad:
        print(f"{len(found) - len(unknown)} packages have no known vulnerability")
    return 1 if bad else 0


def _reason(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason was given")[:200]


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1]))
