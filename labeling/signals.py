"""The two messages that travel upward: judgments were committed, and a project chose another rater.

`judgments_recorded` is sent after commit by `labeling.judgments.record_judgments` with `project_ids` and
`query_ids`, tuples of what changed; receivers leave a hint and return. `rater_changed` is sent inside the
transaction of `labeling.projects.change_project` with `project_id` and `rater`. No receiver fits anything itself.
"""

from django.dispatch import Signal

judgments_recorded = Signal()
rater_changed = Signal()
