"""WSGI entry point: `gunicorn zelo_site.wsgi`."""

from zelo_site.environment import prepare_environment

prepare_environment()

from django.core.wsgi import get_wsgi_application  # noqa: E402

from zelo_site.rerank_first import RerankFirst  # noqa: E402

application = RerankFirst(get_wsgi_application())
