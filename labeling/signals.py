"""Signals to the layers above: judgments were committed, or a project chose a different rater.

`labeling.judgments.record_judgments` sends `judgments_recorded` after commit with `project_ids` and `query_ids`,
tuples of the changed rows; receivers only queue work. `labeling.projects.change_project` sends `rater_changed` inside
its transaction with `project_id` and `rater`. No receiver fits anything itself.
"""

from django.dispatch import Signal

judgments_recorded = Signal()
rater_changed = Signal()
