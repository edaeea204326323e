"""All URLs of the site: pages and the REST API."""

from __future__ import annotations

from django.urls import include, path, re_path

from zelo_site import accounts, reranking
from zelo_site.admin.site import site as admin_site
from zelo_site.api.conventions.problems import unknown_address
from zelo_site.api.root import api
from zelo_site.i18n import language
from zelo_site.operations import health, metrics
from zelo_site.pages.annotation import views as comparing
from zelo_site.pages.charts import charts, graph, matrix
from zelo_site.pages.exporting import downloads
from zelo_site.pages.importing import candidates, past, wizard
from zelo_site.pages.judging import (
    agreement,
    batches,
    conflicts,
    distillation,
    endpoint_choice,
    failures,
    limits,
    probes,
    recordings,
    scorecard,
    teachings,
    trials,
)
from zelo_site.pages.judging.new_run import views as new_run
from zelo_site.pages.lifecycle import archive, deletion
from zelo_site.pages.people import adjudication, people
from zelo_site.pages.people import agreement as agreement_of_people
from zelo_site.pages.project import figures, project, projects, recipe, report, scale, settings, story, webhooks
from zelo_site.pages.queries import asking, bulk, pair, queries, query, where_next
from zelo_site.pages.rerankers import deployments, proof, refining, rerankers, snapshots, training
from zelo_site.pages.server import audit, endpoints, plugins, server
from zelo_site.pages.server import limits as operator_limits
from zelo_site.pages.shell import documentation, finding, icon
from zelo_site.security import second_factor_page

urlpatterns = [
    path("", projects.project_list, name="projects"),
    path("sign-in/", accounts.sign_in, name="sign-in"),
    path("enter/<str:token>/", accounts.use_link, name="enter"),
    path("sign-out/", accounts.sign_out, name="sign-out"),
    path("profile/", accounts.profile, name="profile"),
    path("second-factor/", second_factor_page.second_factor_page, name="second-factor"),
    path("profile/keys/", accounts.change_tokens, name="tokens"),
    path("profile/sessions/", accounts.change_sessions, name="sessions"),
    path("language/", language.set_language, name="set-language"),
    path("new/", wizard.new_project, name="new-project"),
    path("new/archive/", archive.import_archive_page, name="import-archive"),
    path("deleted/", deletion.archived_page, name="archived"),
    path("deleted/<slug:archived>/restore/", deletion.restore, name="restore-project"),
    path("deleted/<slug:archived>/purge/", deletion.purge_page, name="purge-project"),
    path("accounts/<int:user_id>/delete/", deletion.delete_account_page, name="delete-account"),
    path("new/preview/", wizard.preview, name="preview-import"),
    path("admin/", admin_site.urls),
    path("docs/", documentation.docs_page, name="docs"),
    path("docs/<slug:doc>/", documentation.doc_page, name="doc"),
    path("docs/images/<str:image>", documentation.doc_image, name="doc-image"),
    path("find/", finding.find, name="find"),
    path("jobs/", server.jobs_page, name="jobs"),
    path("jobs/live/", server.jobs_live, name="jobs-live"),
    path("audit/", audit.server_audit, name="server-audit"),
    path("doctor/", server.doctor_page, name="doctor"),
    path("plugins/", plugins.plugins_page, name="plugins"),
    path("limits/", operator_limits.limits_page, name="limits"),
    path("endpoints/", endpoints.endpoints_page, name="endpoints"),
    path("new-endpoint/", endpoints.new_endpoint, name="new-endpoint"),
    path("endpoints/<str:name>/", endpoints.endpoint_page, name="endpoint"),
    path("endpoints/<str:name>/test/", endpoints.test_endpoint, name="test-endpoint"),
    path("endpoints/<str:name>/<slug:move>/", endpoints.move_endpoint, name="move-endpoint"),
    path("p/<slug:slug>/", project.project_page, name="project"),
    path("p/<slug:slug>/live/", project.project_live, name="project-live"),
    path("p/<slug:slug>/story/", story.project_story, name="project-story"),
    path("p/<slug:slug>/figures/", figures.project_figures, name="project-figures"),
    path("p/<slug:slug>/settings/", settings.settings_page, name="settings"),
    path("p/<slug:slug>/webhooks/", webhooks.webhooks_page, name="webhooks"),
    path("p/<slug:slug>/webhooks/<int:webhook_id>/", webhooks.webhook_page, name="webhook"),
    path(
        "p/<slug:slug>/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/send/",
        webhooks.send_delivery,
        name="send-delivery",
    ),
    path("p/<slug:slug>/webhooks/<int:webhook_id>/<slug:move>/", webhooks.move_webhook, name="move-webhook"),
    path("p/<slug:slug>/archive/", archive.export_archive, name="export-archive"),
    path("p/<slug:slug>/delete/", deletion.delete_project_page, name="delete-project"),
    path("p/<slug:slug>/delete/<slug:what>/<int:target_id>/", deletion.delete_page, name="delete"),
    path("p/<slug:slug>/audit/", audit.project_audit, name="audit"),
    path("p/<slug:slug>/import/", wizard.import_page, name="import"),
    path("p/<slug:slug>/imports/", past.imports_page, name="imports"),
    path("p/<slug:slug>/imports/<int:import_id>/left-out/", past.left_out, name="left-out"),
    path("p/<slug:slug>/export/", downloads.exports_page, name="exports"),
    path("p/<slug:slug>/export/<str:exporter>/", downloads.download, name="download"),
    path("p/<slug:slug>/candidates/", candidates.candidates, name="candidates"),
    path("p/<slug:slug>/run/", new_run.new_run, name="new-run"),
    path("p/<slug:slug>/run/estimate/", new_run.estimate, name="estimate"),
    path("p/<slug:slug>/run/models/", endpoint_choice.endpoint_models, name="endpoint-models"),
    path("p/<slug:slug>/run/trial/", trials.new_trial, name="new-trial"),
    path("p/<slug:slug>/trials/", trials.trials_page, name="trials"),
    path("p/<slug:slug>/trials/<int:trial_id>/", trials.trial_part, name="trial"),
    path("p/<slug:slug>/teachings/", teachings.teachings_page, name="teachings"),
    path("p/<slug:slug>/teachings/<int:teaching_id>/", teachings.teaching_part, name="teaching"),
    path("p/<slug:slug>/teachings/<int:teaching_id>/cancel/", teachings.cancel, name="cancel-teaching"),
    path("p/<slug:slug>/runs/<int:run_id>/budget/", limits.budget_page, name="budget"),
    path("p/<slug:slug>/runs/<int:run_id>/<slug:action>/", project.move_run, name="move-run"),
    path("p/<slug:slug>/charts/", charts.charts_page, name="charts"),
    path("p/<slug:slug>/charts/<slug:chart>/", charts.chart_part, name="chart"),
    path("p/<slug:slug>/charts/<slug:chart>.<slug:suffix>", charts.chart_file, name="chart-file"),
    path("p/<slug:slug>/queries/", queries.query_list, name="queries"),
    path("p/<slug:slug>/queries/views/", queries.change_views, name="query-views"),
    path("p/<slug:slug>/queries/bulk/", bulk.bulk_page, name="bulk-queries"),
    path("p/<slug:slug>/queries/<int:query_id>/", query.query_page, name="query"),
    path("p/<slug:slug>/queries/<int:query_id>/ranking/", query.query_ranking, name="query-ranking"),
    path("p/<slug:slug>/queries/<int:query_id>/matrix/", matrix.matrix_page, name="matrix"),
    path("p/<slug:slug>/queries/<int:query_id>/graph/", graph.graph_page, name="graph"),
    path("p/<slug:slug>/queries/<int:query_id>/next/", where_next.where_next, name="where-next"),
    path("p/<slug:slug>/queries/<int:query_id>/next/queue/", where_next.queue_next, name="queue-next"),
    path("p/<slug:slug>/pairs/<int:pair_id>/", pair.pair_page, name="pair"),
    path("p/<slug:slug>/pairs/<int:pair_id>/ask/", asking.ask_pair, name="ask-pair"),
    path("p/<slug:slug>/pairs/<int:pair_id>/gold/", pair.mark_gold, name="mark-gold"),
    path("p/<slug:slug>/compare/", comparing.compare, name="compare"),
    path("p/<slug:slug>/instruction/", comparing.instruction, name="instruction"),
    path("p/<slug:slug>/my-answers/", comparing.my_answers, name="my-answers"),
    path("p/<slug:slug>/people/", people.people_page, name="people"),
    path("p/<slug:slug>/people/preview/", people.plan_preview, name="plan-preview"),
    path("p/<slug:slug>/people/agreement/", agreement_of_people.people_agreement_page, name="people-agreement"),
    path("p/<slug:slug>/people/disagreements/", adjudication.disagreements_page, name="disagreements"),
    path("p/<slug:slug>/people/disagreements/<int:pair_id>/", adjudication.adjudicate_page, name="adjudicate"),
    path("p/<slug:slug>/judges/", scorecard.scorecard_page, name="scorecard"),
    path("p/<slug:slug>/judges/conflicts/ask/", conflicts.ask_conflicts, name="ask-conflicts"),
    path("p/<slug:slug>/judges/agreement/", agreement.agreement_part, name="agreement"),
    path("p/<slug:slug>/scale/", scale.scale_page, name="scale"),
    path("p/<slug:slug>/snapshots/", snapshots.snapshots_page, name="snapshots"),
    path("p/<slug:slug>/training/", training.training_page, name="training"),
    path("p/<slug:slug>/training/<int:training_id>/", training.run_page, name="training-run"),
    path("p/<slug:slug>/training/<int:training_id>/live/", training.run_live, name="training-live"),
    path("p/<slug:slug>/training/<int:training_id>/<slug:move>/", training.move_training, name="move-training"),
    path("p/<slug:slug>/proof/", proof.proof_page, name="proof"),
    path("p/<slug:slug>/proof/moved/", proof.moved_page, name="moved"),
    path("p/<slug:slug>/report/", report.report_page, name="report"),
    path("p/<slug:slug>/rerankers/", rerankers.rerankers_page, name="rerankers"),
    path("p/<slug:slug>/rerankers/<int:reranker_id>/try/", rerankers.try_page, name="try-reranker"),
    path("p/<slug:slug>/deployments/", deployments.deployments_page, name="deployments"),
    path("p/<slug:slug>/deployments/<int:deployment_id>/", deployments.deployment_page, name="deployment"),
    path(
        "p/<slug:slug>/deployments/<int:deployment_id>/<slug:move>/",
        deployments.move_deployment,
        name="move-deployment",
    ),
    path("p/<slug:slug>/distill/", distillation.distill_page, name="distill"),
    path(
        "p/<slug:slug>/distill/<int:distillation_id>/<slug:move>/",
        distillation.move_distillation,
        name="move-distillation",
    ),
    path("p/<slug:slug>/recipe/", recipe.recipe_page, name="recipe"),
    path("p/<slug:slug>/recipe/<int:recipe_id>/<slug:move>/", recipe.move_recipe, name="move-recipe"),
    path("p/<slug:slug>/rerankers/<int:reranker_id>/refine/", refining.refine_page, name="refine"),
    path(
        "p/<slug:slug>/refinements/<int:refinement_id>/<slug:move>/", refining.move_refinement, name="move-refinement"
    ),
    path("p/<slug:slug>/recordings/", recordings.recordings_page, name="recordings"),
    path("p/<slug:slug>/probes/", probes.probes_page, name="probes"),
    path("p/<slug:slug>/batches/<int:batch_id>/cancel/", batches.cancel_batch, name="cancel-batch"),
    path("p/<slug:slug>/failures/", failures.failures_page, name="failures"),
    path("p/<slug:slug>/compare/", include("zelo_site.pages.annotation.urls")),
    path("api/v1/", api.urls),
    path("favicon.ico", icon.icon, name="icon"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    re_path(r"^api/", unknown_address, name="unknown-operation"),
    path("models/<slug:slug>/<str:name>/<path:address>", reranking.elsewhere, name="rerank-named"),
    re_path(r"^(?:v1/)?models/?$", reranking.models, name="rerank-models"),
    path("v1/models/<path:name>", reranking.models, name="rerank-model"),
    path("models/<path:name>", reranking.models, name="rerank-model-short"),
    re_path(r"^health/?$", reranking.health, name="health"),
    re_path(r"^info/?$", reranking.rerank, name="rerank-info"),
    re_path(r"^embed/?$", reranking.rerank, name="rerank-embed"),
    re_path(r"^(?:v1/)?embeddings/?$", reranking.rerank, name="rerank-embeddings"),
    re_path(r"^v1/rerank/?$", reranking.rerank, name="rerank-v1"),
    re_path(r"^v2/rerank/?$", reranking.rerank, name="rerank-v2"),
    re_path(r"^rerank/?$", reranking.rerank, name="rerank-tei"),
    re_path(r"^v1/reranking/?$", reranking.rerank, name="rerank-llama-v1"),
    re_path(r"^reranking/?$", reranking.rerank, name="rerank-llama"),
    re_path(r"^v1/score/?$", reranking.rerank, name="rerank-score-v1"),
    re_path(r"^score/?$", reranking.rerank, name="rerank-score"),
    re_path(r"^v[12]/", reranking.unknown_address, name="unknown-address"),
]

handler404 = "zelo_site.reranking.not_found"
