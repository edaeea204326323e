"""One complete plugin of each kind, as `manage.py new_plugin` writes it; docs/plugins.md shows the same texts."""

from __future__ import annotations

HEADER = '''"""A {kind} for zelo."""

from __future__ import annotations

'''

EXAMPLES = {
    "judge": '''from labeling.plugins import Judge, register


@register
class NewPlugin(Judge):
    """Prefers the document with more characters."""

    name = "NAME"
    label = "NAME"
    can_drift = False

    def prepare(self, collection):
        """Nothing to prepare."""

    def judge(self, comparisons):
        from labeling.records import Verdict

        return [Verdict(preference=len(c.a.text) / ((len(c.a.text) + len(c.b.text)) or 1)) for c in comparisons]
''',
    "importer": '''from labeling.importing.lines import RowError, numbered_lines
from labeling.plugins import Importer, register
from labeling.records import ImportedQuery


@register
class NewPlugin(Importer):
    """One query a line: id, tab, text."""

    name = "NAME"
    label = "NAME"
    example = b"q1\\twho\\nq2\\twhat\\n"

    def read(self, stream):
        for line, body in numbered_lines(stream, 1_000_000):
            if isinstance(body, RowError):
                raise body
            try:
                query_id, _, text = body.decode("utf-8").partition("\\t")
            except UnicodeDecodeError:
                query_id, text = "", ""
            if not query_id.strip() or not text.strip() or not (query_id + text).isprintable() or len(query_id) > 500:
                raise RowError("is not a query", line=line, expectation="id, tab, text", remedy="fix the line")
            yield ImportedQuery(query_id.strip(), text.strip(), (), line=line)
''',
    "exporter": '''import json

from labeling.plugins import Exporter, register


@register
class NewPlugin(Exporter):
    """One JSON array a candidate: query id, document id, Elo."""

    name = "NAME"
    label = "NAME"
    suffix = ".jsonl"
    content_type = "application/x-ndjson"

    def write(self, rows, stream):
        for query in rows:
            for document in query.documents:
                stream.write(json.dumps([query.id, document.id, document.elo]).encode() + b"\\n")
''',
    "sampler": '''import numpy as np

from labeling.plugins import Sampler, register


@register
class NewPlugin(Sampler):
    """All pairs that were not drawn yet, in random order."""

    name = "NAME"
    label = "NAME"

    def sample(self, state, budget, rng):
        drawn = set(map(tuple, state.pairs.tolist()))
        pairs = [(a, b) for a in range(state.size) for b in range(a + 1, state.size) if (a, b) not in drawn]
        return rng.permutation(np.array(pairs, dtype=np.int64).reshape(-1, 2))[:budget]
''',
    "retriever": '''from labeling.plugins import Retriever, register


@register
class NewPlugin(Retriever):
    """Documents that share the most words with the query."""

    name = "NAME"
    label = "NAME"

    def retrieve(self, queries, documents, k):
        words = {document.id: set(document.text.lower().split()) for document in documents}
        found = []
        for query in queries:
            asked = set(query.text.lower().split())
            scored = [(document, float(len(asked & words[document]))) for document in words]
            found.append(sorted(scored, key=lambda each: (-each[1], each[0]))[:k])
        return found
''',
    "rater": '''from labeling.plugins import Rater, register
from scoring.numerics.fitting.fit import fit_queries


@register
class NewPlugin(Rater):
    """Bradley-Terry with a stronger prior, which trusts few answers less."""

    name = "NAME"
    label = "NAME"

    def rate(self, columns):
        return fit_queries(columns, model="bradley-terry", prior_precision=0.5)
''',
    "trainer": '''from labeling.plugins import Trainer, register
from trainer.training.options import PointwiseOptions


@register
class NewPlugin(Trainer):
    """The pointwise training, with a note in its events."""

    name = "NAME"
    label = "NAME"
    Options = PointwiseOptions

    def train(self, data, workspace, report):
        from trainer.training.fine_tuning import fine_tune

        report("note", text="NAME starts")
        return fine_tune(self.options, data, workspace, report)
''',
}

PYPROJECT = """[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "0.1.0"
description = "A {kind} for zelo"
requires-python = ">=3.11"
dependencies = ["zelo"]

[project.entry-points."zelo.plugins"]
{name} = "{module}"

[tool.setuptools]
py-modules = ["{module}"]
"""

TEST = '''"""The plugin keeps the contract of its kind."""

from labeling.plugin_checks import assert_plugin

from {module} import NewPlugin


def test_it_conforms() -> None:
    assert_plugin(NewPlugin)
'''


def files_of(kind: str, name: str) -> dict[str, str]:
    """The files of a package with one plugin, by path; `kind` is a key of EXAMPLES, `name` the plugin's name."""
    module = "zelo_" + name.replace("-", "_")
    values = {"kind": kind, "name": name, "module": module, "package": module.replace("_", "-")}
    return {
        "pyproject.toml": PYPROJECT.format(**values),
        f"{module}.py": HEADER.format(**values) + EXAMPLES[kind].replace("NAME", name),
        f"test_{module}.py": TEST.format(**values),
    }
