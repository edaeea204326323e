"""The REST interface: one NinjaAPI under /api/v1 that includes the routers of all apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError
from ninja.openapi.docs import Swagger
from ninja.parser import Parser

from labeling.access.api_auth import API_AUTH
from labeling.importing.strict_json import BadJson, parse
from zelo_site.api.annotation.assignments import router as assignments_router
from zelo_site.api.annotation.gold import router as gold_router
from zelo_site.api.batches import router as batches_router
from zelo_site.api.conventions.openapi import complete
from zelo_site.api.conventions.problems import answer_with_problems, as_problems
from zelo_site.api.data.keys import router as keys_router
from zelo_site.api.data.texts import router as texts_router
from zelo_site.api.endpoints import router as endpoints_router
from zelo_site.api.evaluations import router as proof_router
from zelo_site.api.exchange.imports import router as imports_router
from zelo_site.api.judges import router as judges_router
from zelo_site.api.judging.run_estimates import router as run_estimates_router
from zelo_site.api.judging.run_presets import router as run_presets_router
from zelo_site.api.judging.trials import router as trials_router
from zelo_site.api.lifecycle.deletions import router as deletions_router
from zelo_site.api.lifecycle.projects import router as lifecycle_router
from zelo_site.api.orders.distillations import router as distillation_router
from zelo_site.api.orders.recipes import router as recipes_router
from zelo_site.api.orders.refinements import router as refinements_router
from zelo_site.api.people import router as people_router
from zelo_site.api.projects import router as labeling_router
from zelo_site.api.rerankers import router as rerankers_router
from zelo_site.api.runs import router as workers_router
from zelo_site.api.scores import router as scoring_router
from zelo_site.api.server.deployments import router as deployments_router
from zelo_site.api.server.limits import router as limits_router
from zelo_site.api.server.plugins import router as plugins_router
from zelo_site.api.server.users import router as users_router
from zelo_site.api.server.webhooks import router as webhooks_router
from zelo_site.api.snapshots import router as snapshots_router
from zelo_site.api.trainings import router as training_router
from zelo_site.report.rest import router as reports_router


class StrictParser(Parser):
    """Bodies are JSON objects as RFC 8259 has them; ninja takes an empty list for an empty object, and NaN for a number."""

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        """The body's object. Raises BadJson, which `conventions.problems` finds as the cause of ninja's error."""
        body = parse(request.body)
        if not isinstance(body, dict):
            raise BadJson(
                f"the body is {type(body).__name__}", expectation="a JSON object", remedy="send the fields in {...}"
            )
        return body


class OpenToKeys(NinjaAPI):
    """Exempt a view from the redirect to the sign-in page; the API checks keys and sessions itself."""

    def _get_urls(self) -> list[Any]:
        # Ninja creates new views whenever its URLs are read, so the exemption is here.
        patterns: list[Any] = super()._get_urls()
        for pattern in patterns:
            if pattern.name == "openapi-json":
                pattern.callback = self._for_known_askers(pattern.callback)
            pattern.callback = as_problems(pattern.callback)
            if pattern.name != "openapi-view":
                pattern.callback.login_required = False
        return patterns

    def get_openapi_schema(self, **chosen: Any) -> Any:
        """The OpenAPI document, completed by `conventions.openapi`."""
        return complete(super().get_openapi_schema(**chosen))

    def _for_known_askers(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """Require a key or a session for the schema, which lists the installed plugins and options."""

        def checked(request: HttpRequest, **parameters: Any) -> HttpResponse:
            try:
                if any(check(request) for check in API_AUTH):
                    return view(request, **parameters)
            except HttpError as error:
                return self.on_exception(request, error)
            return self.on_exception(request, AuthenticationError())

        return checked


api = OpenToKeys(
    title="zelo",
    version="1",
    auth=API_AUTH,
    parser=StrictParser(),
    docs=Swagger(settings={"persistAuthorization": True}),
    description="Judge pairs of documents and read calibrated relevance scores.",
)
answer_with_problems(api)
for _router in (
    labeling_router,
    imports_router,
    scoring_router,
    snapshots_router,
    workers_router,
    distillation_router,
    recipes_router,
    refinements_router,
    judges_router,
    trials_router,
    run_estimates_router,
    run_presets_router,
    batches_router,
    people_router,
    training_router,
    proof_router,
    reports_router,
    rerankers_router,
    endpoints_router,
    deletions_router,
    lifecycle_router,
    texts_router,
    keys_router,
    plugins_router,
    limits_router,
    users_router,
    webhooks_router,
    deployments_router,
    assignments_router,
    gold_router,
):
    api.add_router("", _router)
