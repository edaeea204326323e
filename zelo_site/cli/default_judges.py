"""The judges of a run that names none: a language model if the environment names an endpoint, otherwise those without network."""

from __future__ import annotations

import os

from django.core.management.base import CommandError

from workers.endpoints.registry import (
    DEFAULT_ADDRESS,
    EndpointsInvalid,
    KeyMissing,
    endpoint_of_environment,
)
from workers.judges.openai.http.connection_test import list_models
from zelo_site.cli.judge_arguments import NamedJudge
from zelo_site.cli.watch import LOCAL_JUDGES

MODEL_VARIABLE, DEFAULT_MODEL = "OPENAI_MODEL", "gpt-4o-mini"
TIMEOUT_S = 10.0


def default_judges() -> list[NamedJudge]:
    """Return the judges. Raises CommandError where the endpoint lists no model and none is named."""
    try:
        endpoint = endpoint_of_environment()
        if endpoint is None:
            return [NamedJudge(plugin=name) for name in LOCAL_JUDGES]
        model = os.environ.get(MODEL_VARIABLE, "").strip()
        if not model and endpoint.base_url.rstrip("/") == DEFAULT_ADDRESS:
            model = DEFAULT_MODEL
        if not model:
            listed, step = list_models(endpoint, timeout_s=TIMEOUT_S)
            if not listed:
                raise CommandError(
                    f"{endpoint.base_url} lists no models ({step.message}); name one in {MODEL_VARIABLE}, or pass --judges"
                )
            model = listed[0]
    except (EndpointsInvalid, KeyMissing) as error:
        raise CommandError(str(error)) from error
    return [NamedJudge(plugin="openai-http", options={"endpoint": endpoint.name, "model": model}, name=model)]
