"""`manage.py new_plugin` writes a package of each kind that loads by its entry point and keeps its contract."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from labeling import plugins
from labeling.plugin_checks import assert_plugin
from labeling.plugins import KINDS, get_plugin, load_plugins
from tests.tree import ROOT
from zelo_site.cli.plugin_examples import EXAMPLES


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_package_loads_and_conforms(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, name, module = tmp_path / "made", f"new-{kind}", f"zelo_new_{kind}"
    call_command("new_plugin", kind, name, to=folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    info = folder / f"{module}-0.1.0.dist-info"
    info.mkdir()
    entries = project["project"]["entry-points"]["zelo.plugins"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['project']['name']}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[zelo.plugins]\n" + "".join(f"{a} = {b}\n" for a, b in entries.items()))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plugins, "_registry", dict(plugins._registry))
    monkeypatch.setattr(plugins, "_loaded", {})
    importlib.invalidate_caches()
    try:
        (row,) = [each for each in load_plugins(enabled=[name]) if each.name == name]
        assert (row.error, row.package, row.version) == ("", f"zelo-new-{kind}", "0.1.0")
        assert_plugin(get_plugin(kind, name))
        tests: Any = importlib.import_module(f"test_{module}")
        tests.test_it_conforms()
    finally:
        for loaded in (module, f"test_{module}"):
            sys.modules.pop(loaded, None)


def test_bad_names_and_folders_are_refused(tmp_path: Path) -> None:
    for name in ("Upper", "a_b", "x" * 61):
        with pytest.raises(CommandError, match="cannot be used"):
            call_command("new_plugin", "judge", name, to=tmp_path / "new")
    with pytest.raises(CommandError, match="exists already"):
        call_command("new_plugin", "judge", "fine", to=tmp_path)
    with pytest.raises(CommandError, match="installed already"):
        call_command("new_plugin", "sampler", "cycles", to=tmp_path / "new")


def test_the_documentation_shows_every_example() -> None:
    text = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    assert set(EXAMPLES) == set(KINDS)
    assert [kind for kind, example in EXAMPLES.items() if example not in text] == []
