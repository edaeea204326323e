"""Signals to the apps above `labeling`: new judgments, and a changed rater.

`labeling.judgments` sends `judgments_recorded` after commit, with the tuples `project_ids` and `query_ids`; receivers
enqueue work and return. `labeling.projects.change_project` sends `rater_changed` inside its transaction, with
`project_id` and `rater`. No receiver fits anything itself.
"""

from django.dispatch import Signal

judgments_recorded = Signal()
rater_changed = Signal()
