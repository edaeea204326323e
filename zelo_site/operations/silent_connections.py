"""PostgreSQL ends the connections of hosts that are gone, so that no lock outlives its holder.

The receiver is connected when the application starts. The client's own limits (`settings.DATABASES`) tell only the client.
A host that still acknowledges packets, such as a stopped process or a stalled proxy, is found by the limit of idle transactions.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.backends.signals import connection_created
from django.dispatch import receiver

KEEPALIVES = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS limits (name, value)"


@receiver(connection_created)
def limit_silence(sender: Any, connection: Any, **kwargs: Any) -> None:
    """Set the server's limits for this session: half a minute without an acknowledgement, ZELO_IDLE_TRANSACTION_S for a transaction.

    In one statement that Django neither counts nor logs. A value of 0 seconds sets no limit.
    """
    limits = {
        **KEEPALIVES,
        "tcp_user_timeout": "30s",
        "idle_in_transaction_session_timeout": f"{settings.ZELO_IDLE_TRANSACTION_S}s",
    }
    connection.connection.execute(_SET, [list(limits), list(limits.values())])
