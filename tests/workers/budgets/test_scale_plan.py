"""The arithmetic of a large project, and the command that prints it."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from workers.budgets.scale_plan import BadScale, Project, Rates, ways


def test_the_papers_size() -> None:
    project = Project(document_tokens=200, other_tokens=100, output_tokens=2, input_price=1.0, output_price=5.0)
    rates = Rates(
        database_s=4_000, host_calls_s=100, gpu_calls_s=10, candidate_bytes=1000, pair_bytes=100, judgment_bytes=200,
        call_bytes=100, adaptive_share=0.25, student_share=0.2,
    )  # fmt: skip
    every, rotated, adaptive, student = ways(project, rates)
    assert [way.calls / 1e6 for way in (every, rotated, adaptive, student)] == pytest.approx([134.4, 44.8, 33.6, 26.88])
    assert rotated.input_tokens == pytest.approx(44.8e6 * 500)
    assert rotated.dollars == pytest.approx(44.8 * (500 + 10))
    assert rotated.gpu_hours == pytest.approx(44.8e6 / 36_000)
    assert rotated.store_hours == pytest.approx(44.8e6 / 4_000 / 3600)
    assert rotated.database_gb == pytest.approx(11.2 + 4.48 + 13.44)
    assert (every.hosts, rotated.hosts) == (3, 1), "a host makes 60.48 million calls a week"
    assert ways(Project(), Rates())[0].gpu_hours is None, "nobody measured one"
    assert ways(Project(queries=1, judges=1, orders=2), Rates())[0].calls == 800


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--candidates", "10", "--pairs", "46"], "10 candidates have 45 pairs"),
        (["--queries", "0"], "expected 1 or more"),
        (["--orders", "3"], "expected 1 or 2"),
        (["--set", "speed=3"], "'speed' is not a rate"),
        (["--set", "fit_queries_s=0"], "expected a number above 0"),
        (["--set", "fit_queries_s"], "is not RATE=NUMBER"),
    ],
)
def test_what_cannot_be_planned_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        call_command("plan_scale", *arguments, stdout=StringIO())


def test_the_command_prints_a_column_for_each_way() -> None:
    out = StringIO()
    call_command("plan_scale", "--input-price", "0.1", "--set", "gpu_calls_s=100", stdout=out)
    rows = {line[:34].strip(): line[34:].split() for line in out.getvalue().splitlines()[2:-1]}
    assert rows["calls, millions"] == ["134.40", "44.80", "28.22", "14.92"]
    assert rows["GPU hours"] == ["373", "124", "78", "41"] and rows["dollars"][0] == "9,408"
    assert "gpu_calls_s 100" in out.getvalue().splitlines()[-1]


def test_rates_are_replaced_by_name() -> None:
    assert Rates().replaced({"database_s": 9_000.0}).database_s == 9_000.0
    with pytest.raises(BadScale):
        Rates().replaced({"database_s": float("nan")})
