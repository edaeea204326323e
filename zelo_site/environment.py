"""Prepares the environment before Django imports the settings: the umask, the home folder and the signing key.

Entry points (manage.py, celery.py, wsgi.py, asgi.py) call `prepare_environment` first, so that
settings.py does no I/O and the code contains no key.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from zelo_site.processes.services import home_folder, make_home


def prepare_environment() -> None:
    """Set DJANGO_SETTINGS_MODULE and ZELO_SECRET_KEY in the environment."""
    os.umask(0o077)  # all files are private: logs, snapshots, models, uploads
    make_home(home_folder())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    if not os.environ.get("ZELO_SECRET_KEY"):
        os.environ["ZELO_SECRET_KEY"] = secret_key(home_folder())


def secret_key(home: Path) -> str:
    """Return the key stored in `home`, created on first use; racing processes get the same key."""
    path = home / "secret_key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        make_home(home)
    draft = home / f"secret_key.{os.getpid()}"
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(48))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first; use its key
    finally:
        draft.unlink()
    return path.read_text().strip()
