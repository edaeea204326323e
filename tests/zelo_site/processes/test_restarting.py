"""Orders to restart: taken by the server of the home, answered with what came of them, refused without one."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from zelo_site.processes.restarting import ORDER, RestartFailed, RestartOrders, order_restart
from zelo_site.processes.supervisor import Child, ProcessSupervisor


def test_an_order_is_carried_out_and_a_failure_is_passed_on(tmp_path: Path) -> None:
    problem = [""]

    def migrate() -> None:
        if problem[0]:
            raise RestartFailed(problem[0])

    child = Child("worker", [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    orders = RestartOrders(tmp_path, migrate=migrate)
    with ProcessSupervisor([child], home=tmp_path) as orders.processes:
        before = orders.processes.process_ids()
        assert _ordered(tmp_path, orders, migrate=False) == ""
        assert orders.processes.process_ids() != before
        problem[0] = "a table is locked"
        assert _ordered(tmp_path, orders, migrate=True) == "a table is locked"
        assert orders.processes.process_ids() == {}


def test_a_home_without_a_server_refuses_the_order(tmp_path: Path) -> None:
    with pytest.raises(RestartFailed, match="does not support restarts by command"):
        order_restart(tmp_path, migrate=False, patience_s=0.2)
    assert not (tmp_path / ORDER).exists()


def _ordered(home: Path, orders: RestartOrders, *, migrate: bool) -> str:
    """Order from another thread, as another process does, while this one looks; returns the failure."""
    failures: list[str] = []

    def order() -> None:
        try:
            order_restart(home, migrate=migrate)
        except RestartFailed as error:
            failures.append(str(error))

    thread = threading.Thread(target=order)
    thread.start()
    while thread.is_alive():
        orders.look()
        thread.join(0.05)
    return failures[0] if failures else ""
