"""Deployments: list and create; one with its versions, variant, shadow and log; deploy, roll back, import, clear, delete.

`trainer.deployments.changes` and `trainer.deployments.request_log` make the changes, as for REST and `manage.py deployment`. Only
owners see the logged texts.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from labeling.importing.summary import ImportFailed
from labeling.models import Project
from trainer.deployments.changes import (
    DeploymentRefused,
    change_deployment,
    clear_log,
    create_deployment,
    delete_deployment,
    deploy,
    roll_back,
)
from trainer.deployments.reports import shadow_summaries
from trainer.deployments.request_log import import_logged
from trainer.deployments.routing import deployment_name
from trainer.models import Deployment, Reranker
from trainer.serving.registry import servable
from zelo_site.pages.forms import BadForm, PageForm
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.reranking import warm

PAGE = 20


class VersionForm(PageForm):
    """The version to deploy."""

    version = forms.ModelChoiceField(Reranker.objects.none(), label=gettext_lazy("Version"))


class NewDeploymentForm(VersionForm):
    """A name and its first version."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=80)
    field_order = ("name", "version")


class SettingsForm(PageForm):
    """Variant, shadow and log of a deployment."""

    variant = forms.ModelChoiceField(Reranker.objects.none(), label=gettext_lazy("Variant"), required=False)
    variant_share = forms.IntegerField(label=gettext_lazy("Keys in percent"), min_value=0, max_value=100)
    shadow = forms.ModelChoiceField(Reranker.objects.none(), label=gettext_lazy("Shadow"), required=False)
    shadow_share = forms.IntegerField(label=gettext_lazy("Requests in percent"), min_value=0, max_value=100)
    log_share = forms.IntegerField(label=gettext_lazy("Logged requests in percent"), min_value=0, max_value=100)
    log_days = forms.IntegerField(label=gettext_lazy("Days to keep"), min_value=1, max_value=365)


def deployments_page(request: HttpRequest, slug: str) -> HttpResponse:
    """List the project's deployments; a POST creates one."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _list_page(request, project, NewDeploymentForm(rows={"version": _versions(project)}))
    owned_project(request, slug)
    form = NewDeploymentForm(request.POST, rows={"version": _versions(project)})
    try:
        values = form.checked()
        made = create_deployment(project, values["name"], values["version"], warm=warm, by=request.user)
    except (BadForm, DeploymentRefused) as error:
        if isinstance(error, DeploymentRefused):
            form.add_error("name", str(error))
        return _list_page(request, project, form, status=422)
    return redirect("deployment", slug=slug, deployment_id=made.pk)


def deployment_page(request: HttpRequest, slug: str, deployment_id: int) -> HttpResponse:
    """Show a deployment; a POST changes variant, shadow and log."""
    project = visible_project(request, slug)
    deployment = _deployment_or_404(project, deployment_id)
    if request.method != "POST":
        return _one_page(request, deployment)
    owned_project(request, slug)
    form = SettingsForm(request.POST, rows=_offered(deployment))
    try:
        change_deployment(deployment, **form.checked(), warm=warm, by=request.user)
    except (BadForm, DeploymentRefused) as error:
        if isinstance(error, DeploymentRefused):
            form.add_error(None, str(error))
        return _one_page(request, deployment, form=form, status=422)
    messages.success(request, _("Saved."))
    return redirect("deployment", slug=slug, deployment_id=deployment_id)


@require_POST
def move_deployment(request: HttpRequest, slug: str, deployment_id: int, move: str) -> HttpResponse:
    """Deploy a version, roll back, import or clear the log, or delete the deployment."""
    project = owned_project(request, slug)
    deployment = _deployment_or_404(project, deployment_id)
    try:
        if move == "deploy":
            version = VersionForm(request.POST, rows={"version": _versions(project)}).checked()["version"]
            deploy(deployment, version, warm=warm, by=request.user)
            messages.success(request, _("%(name)s is the current version.") % {"name": version.name})
        elif move == "rollback":
            version = roll_back(deployment, warm=warm, by=request.user).current
            messages.success(request, _("%(name)s is the current version again.") % {"name": version.name})
        elif move == "import":
            _import(request, deployment)
        elif move == "clear":
            clear_log(deployment, by=request.user)
            messages.success(request, _("Log cleared."))
        elif move == "delete":
            delete_deployment(deployment, by=request.user)
            messages.success(request, _("Deployment deleted."))
            return redirect("deployments", slug=slug)
        else:
            raise Http404
    except (BadForm, DeploymentRefused, ImportFailed) as error:
        messages.error(request, str(error))
    return redirect("deployment", slug=slug, deployment_id=deployment_id)


def _import(request: HttpRequest, deployment: Deployment) -> None:
    found = import_logged(deployment, by=request.user)
    said = ngettext(
        "%(queries)s new query from %(requests)s request.",
        "%(queries)s new queries from %(requests)s requests.",
        found.queries,
    ) % {"queries": found.queries, "requests": found.requests}
    if found.known:
        said += " " + _("%(known)s requests have queries that the project has already.") % {"known": found.known}
    messages.success(request, said)


def _versions(project: Project) -> Any:
    return servable().filter(project=project)


def _offered(deployment: Deployment) -> dict[str, Any]:
    others = _versions(deployment.project).exclude(pk=deployment.current_id)
    return {"variant": others, "shadow": others}


def _deployment_or_404(project: Project, deployment_id: int) -> Deployment:
    found = Deployment.objects.select_related("project", "current", "previous", "variant", "shadow")
    return get_object_or_404(found, project=project, pk=deployment_id)


def _list_page(request: HttpRequest, project: Project, form: PageForm, *, status: int = 200) -> HttpResponse:
    rows = Deployment.objects.filter(project=project).select_related("current", "previous", "variant", "project")
    context = {
        "project": project,
        "rows": [(row, deployment_name(row)) for row in rows],
        "form": form,
        "can_create": _versions(project).exists(),
        "may_change": may_change(request, project),
        "here": "rerankers",
    }
    return render(request, "zelo/rerankers/deployments.html", context, status=status)


def _one_page(
    request: HttpRequest, deployment: Deployment, *, form: SettingsForm | None = None, status: int = 200
) -> HttpResponse:
    project = deployment.project
    names = [name for name in SettingsForm.base_fields if name not in ("variant", "shadow")]
    initial = {name: getattr(deployment, name) for name in names}
    initial |= {"variant": deployment.variant_id, "shadow": deployment.shadow_id}
    is_owner = may_change(request, project)
    page = Paginator(deployment.requests.select_related("reranker"), PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "deployment": deployment,
        "full_name": deployment_name(deployment),
        "origin": f"{request.scheme}://{request.get_host()}",
        "form": form or SettingsForm(initial=initial, rows=_offered(deployment)),
        "versions": _versions(project).exclude(pk=deployment.current_id),
        "shadows": shadow_summaries(deployment),
        "page": page if is_owner else None,
        "waiting": deployment.requests.filter(imported_at=None).count(),
        "may_change": is_owner,
        "here": "rerankers",
    }
    return render(request, "zelo/rerankers/deployment.html", context, status=status)
