from django.db import migrations, models
import django.db.models.deletion


class Migration(migrations.Migration):

    dependencies = [
        ('scoring', '0002_project_fit'),
        ('trainer', '0001_tables'),
    ]

    operations = [
        # Nothing has written this table before, so that no row lacks a snapshot.
        migrations.AddField(
            model_name='evaluation',
            name='snapshot',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='evaluations', to='scoring.snapshot'),
        ),
        migrations.AddField(
            model_name='evaluation',
            name='scores',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AddConstraint(
            model_name='evaluation',
            constraint=models.UniqueConstraint(fields=('reranker', 'snapshot', 'split', 'reference'), name='evaluation_once'),
        ),
        migrations.AddConstraint(
            model_name='evaluation',
            constraint=models.CheckConstraint(condition=models.Q(('reference__in', ['grades', 'elo'])), name='evaluation_reference'),
        ),
    ]
