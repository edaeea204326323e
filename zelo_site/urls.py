"""Every address of the site: the pages that join floors, and the REST interface."""

from __future__ import annotations

from django.urls import path

from zelo_site import accounts
from zelo_site.api import api
from zelo_site.pages import (
    agreement,
    candidates,
    failures,
    figures,
    graph,
    matrix,
    pair,
    probes,
    project,
    projects,
    queries,
    query,
    scale,
    scorecard,
    server,
    settings,
    start,
    where_next,
    wizard,
)

urlpatterns = [
    path("", projects.project_list, name="projects"),
    path("sign-in/", accounts.sign_in, name="sign-in"),
    path("enter/<str:token>/", accounts.use_link, name="enter"),
    path("sign-out/", accounts.sign_out, name="sign-out"),
    path("profile/", accounts.profile, name="profile"),
    path("new/", wizard.new_project, name="new-project"),
    path("new/preview/", wizard.preview, name="preview-import"),
    path("jobs/", server.jobs_page, name="jobs"),
    path("jobs/live/", server.jobs_live, name="jobs-live"),
    path("doctor/", server.doctor_page, name="doctor"),
    path("p/<slug:slug>/", project.project_page, name="project"),
    path("p/<slug:slug>/live/", project.project_live, name="project-live"),
    path("p/<slug:slug>/figures/", figures.project_figures, name="project-figures"),
    path("p/<slug:slug>/settings/", settings.settings_page, name="settings"),
    path("p/<slug:slug>/import/", wizard.import_page, name="import"),
    path("p/<slug:slug>/candidates/", candidates.candidates, name="candidates"),
    path("p/<slug:slug>/run/", start.new_run, name="new-run"),
    path("p/<slug:slug>/run/estimate/", start.estimate, name="estimate"),
    path("p/<slug:slug>/runs/<int:run_id>/<slug:action>/", project.move_run, name="move-run"),
    path("p/<slug:slug>/queries/", queries.query_list, name="queries"),
    path("p/<slug:slug>/queries/<int:query_id>/", query.query_page, name="query"),
    path("p/<slug:slug>/queries/<int:query_id>/ranking/", query.query_ranking, name="query-ranking"),
    path("p/<slug:slug>/queries/<int:query_id>/matrix/", matrix.matrix_page, name="matrix"),
    path("p/<slug:slug>/queries/<int:query_id>/graph/", graph.graph_page, name="graph"),
    path("p/<slug:slug>/queries/<int:query_id>/next/", where_next.where_next, name="where-next"),
    path("p/<slug:slug>/queries/<int:query_id>/next/queue/", where_next.queue_next, name="queue-next"),
    path("p/<slug:slug>/pairs/<int:pair_id>/", pair.pair_page, name="pair"),
    path("p/<slug:slug>/judges/", scorecard.scorecard_page, name="scorecard"),
    path("p/<slug:slug>/judges/agreement/", agreement.agreement_part, name="agreement"),
    path("p/<slug:slug>/scale/", scale.scale_page, name="scale"),
    path("p/<slug:slug>/probes/", probes.probes_page, name="probes"),
    path("p/<slug:slug>/failures/", failures.failures_page, name="failures"),
    path("api/v1/", api.urls),
]
