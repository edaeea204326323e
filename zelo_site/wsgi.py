"""WSGI entry point: `gunicorn zelo_site.wsgi`."""

from zelo_site.environment import prepare_environment

prepare_environment()

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()
