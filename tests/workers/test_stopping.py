"""The end of a process at once: its exit code, its output, and no folder left behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ENDS = """
import multiprocessing.util
from workers.stopping import leave
print(multiprocessing.util.get_temp_dir())
leave(3)
"""


def test_leaving_removes_the_temporary_folder_of_shared_memory() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", ENDS], cwd=root, capture_output=True, text=True, check=False)
    folder = Path(done.stdout.strip())
    assert done.returncode == 3 and folder.name.startswith("pymp-") and not folder.exists()
    assert folder.parent == Path(tempfile.gettempdir())
