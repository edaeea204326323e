"""One environment variable names the model that judges a run without `--judges`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.core.management import CommandError

from workers.endpoints.registry import (
    EndpointsInvalid,
    UnknownEndpoint,
    endpoint_of_environment,
    get_endpoint,
    load_endpoints,
)
from zelo_site.cli.default_judges import default_judges
from zelo_site.cli.judge_arguments import NamedJudge, check_prices

VARIABLES = (
    "ZELO_ENDPOINTS", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_INPUT_PRICE", "OPENAI_OUTPUT_PRICE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Models(BaseHTTPRequestHandler):
    names: list[str] = []

    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": name} for name in self.names]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_without_a_variable_the_judges_need_no_network() -> None:
    assert [each.plugin for each in default_judges()] == ["bm25", "query-likelihood", "embedding"]
    assert endpoint_of_environment() is None


def test_a_key_alone_names_endpoint_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    [judge] = default_judges()
    assert (judge.plugin, judge.options) == ("openai-http", {"endpoint": "openai", "model": "gpt-4o-mini"})
    endpoint = load_endpoints({"OPENAI_API_KEY": "sk-one"})["openai"]
    assert (endpoint.base_url, endpoint.api_key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_MODEL", "another")
    assert default_judges()[0].options["model"] == "another"


def test_an_address_alone_asks_its_first_model_without_a_key(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setattr(Models, "names", ["local-7b", "other"])
    assert default_judges()[0].options == {"endpoint": "openai", "model": "local-7b"}
    assert load_endpoints({"OPENAI_BASE_URL": address})["openai"].api_key() is None
    monkeypatch.setattr(Models, "names", [])
    with pytest.raises(CommandError, match=r"lists no models.*OPENAI_MODEL"):
        default_judges()


def test_defined_endpoints_win_and_a_wrong_address_is_named() -> None:
    own = '[{"name": "mine", "base_url": "http://127.0.0.1:9/v1"}]'
    assert list(load_endpoints({"ZELO_ENDPOINTS": own, "OPENAI_API_KEY": "sk"})) == ["mine"]
    with pytest.raises(EndpointsInvalid, match=r"OPENAI_BASE_URL is 'nowhere'.*expected an address such as"):
        load_endpoints({"OPENAI_BASE_URL": "nowhere"})


def test_a_budget_in_dollars_needs_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    judges = default_judges()
    check_prices(judges, None)
    with pytest.raises(
        CommandError, match=r"--dollars 5 limits nothing.*Set OPENAI_INPUT_PRICE and OPENAI_OUTPUT_PRICE"
    ):
        check_prices(judges, 5.0)
    monkeypatch.setenv("OPENAI_INPUT_PRICE", "0.15")
    monkeypatch.setenv("OPENAI_OUTPUT_PRICE", "0.6")
    check_prices(judges, 5.0)
    assert get_endpoint("openai").cost_micros(1_000_000, 1_000_000) == 750_000
    check_prices([NamedJudge(plugin="bm25")], 5.0)


def test_a_free_endpoint_beside_one_with_prices_leaves_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"base_url": "http://127.0.0.1:9/v1"}
    monkeypatch.setenv(
        "ZELO_ENDPOINTS", json.dumps([{"name": "own", **address}, {"name": "dear", **address, "output_price": 2.0}])
    )
    own, dear = (NamedJudge(plugin="openai", options={"endpoint": name}) for name in ("own", "dear"))
    check_prices([own, dear], 5.0)
    with pytest.raises(CommandError, match=r"'own' has no prices. Set input_price and output_price"):
        check_prices([own], 5.0)


@pytest.mark.django_db
def test_a_wrong_price_and_variables_that_another_process_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointsInvalid, match=r"OPENAI_INPUT_PRICE is '0,15'.*expected dollars per million tokens"):
        load_endpoints({"OPENAI_API_KEY": "sk", "OPENAI_INPUT_PRICE": "0,15"})
    with pytest.raises(UnknownEndpoint, match=r"restart the server with the same variables, or add the endpoint"):
        get_endpoint("openai")
