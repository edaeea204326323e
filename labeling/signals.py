"""The only message that travels upward: judgments were committed.

Sent after commit by `labeling.judgments.record_judgments` with `project_ids` and `query_ids`, tuples
of what changed. Receivers leave a hint and return; none fits anything itself.
"""

from django.dispatch import Signal

judgments_recorded = Signal()
