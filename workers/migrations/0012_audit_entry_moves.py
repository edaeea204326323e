"""The audit log belongs to `labeling` now; its table stays."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0011_probes_to_jobs"), ("labeling", "0011_audit_entry")]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="AuditEntry")])
    ]
