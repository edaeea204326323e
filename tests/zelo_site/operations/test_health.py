"""Health and readiness: what a load balancer asks, without a key."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

pytestmark = pytest.mark.django_db


def test_a_ready_server_says_so_to_everybody(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200 and ready.json()["checks"]["database"] == "ok"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_load_balancers_ask_by_address_and_behind_tls(path: str, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT, settings.ALLOWED_HOSTS = True, ["zelo.example"]
    asked = Client(raise_request_exception=False, headers={"host": "10.0.0.7:8000"})
    assert asked.get(path).status_code == 200
    assert asked.get("/sign-in/").status_code in (301, 400)


def test_strangers_who_ask_often_cost_little(client: Client, django_assert_max_num_queries: Any) -> None:
    client.get("/readyz")
    with django_assert_max_num_queries(4):
        assert client.get("/readyz").status_code == 200


def test_a_missing_broker_pauses_judging_and_leaves_the_server_ready(client: Client, broker_down: Any) -> None:
    ready = client.get("/readyz")
    assert ready.status_code == 200 and "paused" in ready.json()["checks"]["broker"]


def test_a_server_with_old_tables_is_not_ready(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'scoring'")
    ready = client.get("/readyz")
    assert ready.status_code == 503 and "migrate" in ready.json()["checks"]["database"]
