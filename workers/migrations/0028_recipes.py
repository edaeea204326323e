"""Recipes and their stages."""

import django.db.models.deletion
import django.db.models.functions.datetime
import labeling.models.fields
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('labeling', '0018_archived_projects_retired_judges'),
        ('scoring', '0006_call_correlation'),
        ('trainer', '0003_held_back_students'),
        ('workers', '0027_webhooks'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Recipe',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('options', models.JSONField(blank=True, default=dict)),
                ('plan', models.JSONField(blank=True, default=dict)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('created_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL)),
                ('job', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='recipe', to='workers.job')),
                ('judges', models.ManyToManyField(related_name='+', to='labeling.annotator')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='recipes', to='labeling.project')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='RecipeStage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveSmallIntegerField()),
                ('name', models.CharField(choices=[('panel', 'panel'), ('distillation', 'distillation'), ('design', 'design'), ('calibration', 'calibration'), ('student', 'student'), ('refinement', 'refinement'), ('proof', 'proof')], max_length=20)),
                ('state', models.CharField(choices=[('planned', 'planned'), ('running', 'running'), ('finished', 'finished'), ('left_out', 'left out'), ('failed', 'failed')], default='planned', max_length=20)),
                ('reason', labeling.models.fields.MessageField(blank=True)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('job', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='workers.job')),
                ('recipe', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='stages', to='workers.recipe')),
                ('run', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='workers.run')),
                ('snapshot', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='scoring.snapshot')),
                ('training', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='trainer.trainingrun')),
            ],
            options={
                'ordering': ['recipe', 'number'],
                'constraints': [models.UniqueConstraint(fields=('recipe', 'name'), name='recipe_stage_once'), models.UniqueConstraint(fields=('recipe', 'number'), name='recipe_stage_in_order'), models.CheckConstraint(condition=models.Q(('name__in', ['panel', 'distillation', 'design', 'calibration', 'student', 'refinement', 'proof'])), name='recipe_stage_name'), models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', True), ('started_at__isnull', True), ('state', 'planned')), models.Q(('finished_at__isnull', True), ('started_at__isnull', False), ('state__in', ['running', 'failed'])), models.Q(('finished_at__isnull', False), ('started_at__isnull', False), ('state', 'finished')), models.Q(('finished_at__isnull', True), ('state', 'left_out')), _connector='OR'), name='recipe_stage_times_fit_state')],
            },
        ),
    ]
