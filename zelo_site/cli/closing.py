"""The summary that `manage.py run` prints: calls, savings and top-10 certainty."""

from __future__ import annotations

from labeling.models import Project
from workers.budgets.spend import totals_of_run
from workers.models import JudgingTask, Run
from workers.monitoring.data_summary import judged_sizes
from workers.runs.closing import frequent_failure
from workers.runs.savings import read_saving, saving_sentence
from zelo_site.pages.project.certainty import read_certainty
from zelo_site.templatetags.figures import money


def closing_lines(project: Project, run: Run) -> str:
    """Return the summary, one fact per line."""
    run.refresh_from_db()
    lines = [f"run ended: {run.reason}" if run.reason else f"the run is {run.state}"]
    dead = JudgingTask.objects.filter(run=run, state=JudgingTask.State.DEAD).count()
    if dead:
        found = frequent_failure(run)
        lines.append(f"{dead:,} questions got no answer; most frequent: {found.message}")
    left = JudgingTask.objects.filter(run=run, state=JudgingTask.State.OPEN).count()
    if left:
        lines.append(
            f"{left:,} planned questions were not asked; start another run of the same judges to ask them first"
        )
    if run.estimate.get("tokens"):
        spent, expected = totals_of_run(run.pk), run.estimate
        lines.append(
            f"spent {money(spent.cost_micros)} on {spent.input_tokens + spent.output_tokens:,} tokens; expected "
            f"{money(expected['cost_micros'])}, at most {money(expected['most_cost_micros'])}"
        )
    saving = read_saving(project, judged_sizes(project))
    if saving is not None:
        lines.append(saving_sentence(saving))
    certainty = read_certainty(project)
    if certainty is not None:
        queries = f"{certainty.read:,} of {certainty.rated:,}" if certainty.read < certainty.rated else certainty.read
        lines.append(
            f"top-10 certainty: {certainty.mean:.2f} (expected recall of the true top 10, mean of {queries} queries; "
            f"lowest {certainty.lowest:.2f})"
        )
    return "\n".join(lines)
