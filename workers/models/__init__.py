"""The tables of work: runs, jobs, judging tasks, paid calls, batches at providers, budgets, endpoints, webhooks, heartbeats.

The rows are the truth; a Celery message is only a hint that there is work. Everybody imports models from here.
"""

from workers.models.budgets import Caps, DeletedSpend, EndpointRestriction, EndpointSpend, OperatorLimit, Spend
from workers.models.endpoints import EndpointDefinition, EndpointShare, EndpointState
from workers.models.jobs import Job
from workers.models.probes import InjectionProbe
from workers.models.provider_batches import ProviderBatch
from workers.models.query_figures import CertaintyPoint, ProjectFigure, QueryFigures
from workers.models.recipes import Recipe, RecipeStage
from workers.models.runs import Run
from workers.models.tasks import FAILURE_KINDS, Attempt, JudgingTask, TaskCount
from workers.models.teaching import JudgeTeaching
from workers.models.trouble import JudgeTrial, JudgeTrouble
from workers.models.webhooks import Webhook, WebhookDelivery
from workers.models.workers import Worker

__all__ = [
    "FAILURE_KINDS",
    "Attempt",
    "Caps",
    "CertaintyPoint",
    "DeletedSpend",
    "EndpointDefinition",
    "EndpointRestriction",
    "EndpointShare",
    "EndpointSpend",
    "EndpointState",
    "InjectionProbe",
    "Job",
    "JudgeTeaching",
    "JudgeTrial",
    "JudgeTrouble",
    "JudgingTask",
    "OperatorLimit",
    "ProjectFigure",
    "ProviderBatch",
    "QueryFigures",
    "Recipe",
    "RecipeStage",
    "Run",
    "Spend",
    "TaskCount",
    "Webhook",
    "WebhookDelivery",
    "Worker",
]
