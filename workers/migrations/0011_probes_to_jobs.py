"""Every injection probe without a job gets one with its state. A probe under way is opened again for the next worker.

Batched and re-runnable: probes that have a job are left alone.
"""

from django.db import migrations, transaction

BATCH = 500


def make_jobs(apps, schema_editor):
    Job, Probe = apps.get_model("workers", "Job"), apps.get_model("workers", "InjectionProbe")
    while probes := list(Probe.objects.filter(job=None).order_by("id")[:BATCH]):
        with transaction.atomic():
            for probe in probes:
                is_over = probe.state in ("finished", "failed")
                probe.job = Job(
                    project_id=probe.project_id,
                    stage="probe",
                    state=probe.state if is_over else "open",
                    fence=probe.starts,
                    attempts=probe.starts,
                    error=probe.error,
                    created_at=probe.created_at,
                    finished_at=probe.finished_at,
                )
            Job.objects.bulk_create([probe.job for probe in probes])
            Probe.objects.bulk_update(probes, ["job"])


def copy_back(apps, schema_editor):
    Job, Probe = apps.get_model("workers", "Job"), apps.get_model("workers", "InjectionProbe")
    for probe in Probe.objects.exclude(job=None).select_related("job").iterator(chunk_size=BATCH):
        job = probe.job
        probe.state = job.state if job.state in ("finished", "failed") else "open"
        probe.starts, probe.error, probe.finished_at, probe.job = job.attempts, job.error, job.finished_at, None
        probe.save()
    Job.objects.filter(stage="probe").delete()


class Migration(migrations.Migration):
    dependencies = [("workers", "0010_probe_job")]

    operations = [migrations.RunPython(make_jobs, copy_back)]
