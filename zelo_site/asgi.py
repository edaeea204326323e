"""ASGI entry point: `uvicorn zelo_site.asgi:application`."""

from zelo_site.environment import prepare_environment

prepare_environment()

from django.core.asgi import get_asgi_application  # noqa: E402

application = get_asgi_application()
