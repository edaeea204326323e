"""The client as a package of its own: pip installs it into an empty environment, and its README is true."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import zelo_client

FOLDER = Path(zelo_client.__file__).parent


def installed(name: str) -> Path:
    """The folder that holds an installed distribution's modules."""
    module = __import__(name)
    return Path(str(module.__file__)).parent.parent


def test_pip_installs_it_into_an_empty_environment(tmp_path: Path) -> None:
    """Without a network: pip takes the client alone, and httpx and pydantic come from where they are installed here."""
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    target, source = tmp_path / "site", tmp_path / "source" / "zelo_client"
    shutil.copytree(FOLDER, source)  # the build leaves files beside its sources
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(target), str(source)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert (target / "zelo_client" / "py.typed").is_file()
    packages = [target, *{installed("httpx"), installed("pydantic")}]
    code = (
        f"import sys; sys.path += {[str(each) for each in packages]!r}\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'django', 'ninja', 'zelo_site', 'labeling', 'workers', 'torch', 'numpy'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "import zelo_client; zelo_client.Zelo('http://127.0.0.1:9', 'zelo_x').close(); print(zelo_client.__file__)"
    )
    said = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == str(target / "zelo_client" / "__init__.py")


@pytest.mark.parametrize("page", [FOLDER / "README.md", FOLDER.parent / "docs" / "client.md"], ids=["README", "docs"])
def test_the_documents_show_methods_that_there_are(page: Path) -> None:
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    assert blocks
    for block in blocks:
        code = block.partition("```")[0]
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zelo":
                assert hasattr(zelo_client.Zelo, node.attr), node.attr
    assert len([line for line in blocks[0].partition("```")[0].splitlines() if line.strip()]) <= 15
