"""The files for Prometheus and Grafana: they parse, name metrics that exist, and each alert has its entry of the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

import zelo_site.settings
from tests.factories.rows import make_user

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENT = ROOT / "docs" / "deployment"
RULES = DEPLOYMENT / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOYMENT / "grafana" / "zelo.json"
NAME = re.compile(r"\b(?:zelo|django)_[a-z0-9_]+\b")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


@pytest.mark.django_db
def test_rules_and_dashboard_name_metrics_that_the_server_has(client: Client) -> None:
    client.force_login(make_user("operator", is_superuser=True))
    answer = client.get("/metrics").content.decode()
    names = set()
    for family in text_string_to_metric_families(answer):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        names.update({f"{family.name}_bucket"} if family.type == "histogram" else ())
    used = {name for rule in alerts() for name in NAME.findall(rule["expr"])}
    shown = {name for panel in panels() for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert used | shown <= names
    documented = set(NAME.findall((ROOT / "docs" / "operations.md").read_text()))
    assert {name for name in names if name.startswith("zelo_")} <= documented, "docs/operations.md lists every metric"


def test_every_alert_has_a_severity_and_a_summary() -> None:
    found = alerts()
    assert len(found) == len({rule["alert"] for rule in found}) == 21
    for rule in found:
        assert rule["labels"]["severity"] in {"page", "ticket"} and rule["annotations"]["summary"]


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    runbook = text.partition("\n## Runbook\n")[2].partition("\n## ")[0]
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert list(entries) == [rule["alert"] for rule in alerts()]
    for name, entry in entries.items():
        assert re.findall(r"^- (Symptom|Cause|Command):", entry, re.MULTILINE) == ["Symptom", "Cause", "Command"], name


def test_every_setting_is_documented() -> None:
    table = str(zelo_site.settings.__doc__)
    named = {
        name
        for line in table.splitlines()
        for name in re.findall(r"\bZELO_[A-Z_]+\b", line.partition("| ")[2].partition(" |")[0])
    }
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert len(named) > 25 and {name for name in named if not re.search(rf"\b{name}\b", text)} == set()
    operations = (ROOT / "docs" / "operations.md").read_text()
    limits = {name for name in named if name.startswith(("ZELO_MAX_", "ZELO_RERANK_")) and name != "ZELO_RERANK_URL"}
    assert {name for name in limits if f"| `{name}` |" not in operations} == set()


def test_panels_have_places_of_their_own_and_one_data_source() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places) and len({panel["id"] for panel in panels()}) == len(places)
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${source}"}
    assert all(target["expr"] and target["legendFormat"] for panel in panels() for target in panel["targets"])


@pytest.mark.long
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed; `apt-get install prometheus` brings it")
    checked = subprocess.run([tool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "21 rules found" in checked.stdout


@pytest.mark.long
def test_a_first_failure_and_a_queue_without_workers_raise_alerts(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed; `apt-get install prometheus` brings it")
    series = {
        'zelo_jobs{stage="train",state="failed"}': "0x5 1x20", 'zelo_webhook_deliveries{state="failed"}': "0x5 1x20",
        'zelo_dead_letters{reason="refusal"}': "0x5 30x20", 'zelo_queue_due{queue="rating"}': "3x20",
        'zelo_queue_workers{queue="rating"}': "0x20", 'zelo_queue_due{queue="training"}': "3x20",
        'zelo_queue_workers{queue="training"}': "1x20",
    }  # fmt: skip
    raised = {
        "JobsFail": {"stage": "train", "state": "failed"}, "WebhooksFail": {"state": "failed"},
        "DeadLetters": {"reason": "refusal"}, "NoWorker": {"queue": "rating"}, "QueueStands": None,
    }  # fmt: skip
    rules = {rule["alert"]: rule for rule in alerts()}
    for rule in rules.values():
        rule["annotations"] = {"summary": rule["alert"]}  # the texts are not what is tested
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "zelo", "rules": list(rules.values())}]}))
    expected = [
        {
            "eval_time": "10m", "alertname": name,
            "exp_alerts": [] if labels is None
            else [{"exp_labels": {**labels, **rules[name]["labels"]}, "exp_annotations": {"summary": name}}],
        }
        for name, labels in raised.items()
    ]  # fmt: skip
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {
        "rule_files": ["alerts.yml"],
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": expected}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [tool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
