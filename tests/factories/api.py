"""A client of the REST interface that signs its requests and checks their status."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from labeling.access.api_keys import make_token


class Api:
    """A program with a key."""

    def __init__(self, user: Any, *scopes: str) -> None:
        self.headers = {
            "Authorization": f"Bearer {make_token(user, name='test', scopes=scopes or ('read', 'write', 'admin'))}"
        }
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=False)

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/v1{path}", headers=self.headers)

    def patch(self, path: str, body: Any) -> Any:
        return self.client.patch(
            f"/api/v1{path}", json.dumps(body), content_type="application/json", headers=self.headers
        )

    def post(self, path: str, body: Any = None) -> Any:
        return self.client.post(
            f"/api/v1{path}", json.dumps(body or {}), content_type="application/json", headers=self.headers
        )
