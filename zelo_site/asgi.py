"""ASGI entry point for external ASGI servers; zelo itself serves `zelo_site.wsgi`."""

from zelo_site.environment import prepare_environment

prepare_environment()

from django.core.asgi import get_asgi_application  # noqa: E402

application = get_asgi_application()
