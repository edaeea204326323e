"""File formats of imports (stage 1), one file for each format.

An importer turns a stream into rows, and `RowChecks` checks consistency across the lines of a file.
`labeling.importing.dataset` stores the rows. Importing this package (the entry point `formats`) registers all formats.
Imports no Django.
"""

from labeling.importing.formats.answers.argilla import Argilla
from labeling.importing.formats.answers.label_studio import LabelStudio
from labeling.importing.formats.answers.preferences import Preferences
from labeling.importing.formats.answers.zbench_scores import ZbenchScores
from labeling.importing.formats.beir import Beir
from labeling.importing.formats.json_grades import JsonGrades
from labeling.importing.formats.line_importer import LineImporter, LineOptions, Row, RowImporter, make_importer
from labeling.importing.formats.ms_marco import MsMarcoTexts, MsMarcoTop, MsMarcoTriples
from labeling.importing.formats.row_checks import RowChecks
from labeling.importing.formats.tables.datasets_folder import DatasetsFolder
from labeling.importing.formats.tables.table import QuepidCsv, Table
from labeling.importing.formats.trec_qrels import TrecQrels
from labeling.importing.formats.trec_run import MsMarcoRun, TrecRun
from labeling.importing.formats.trec_topics import TrecTopics
from labeling.importing.formats.value_checks import MAX_ID_CHARACTERS
from labeling.importing.formats.zbench_jsonl import ZbenchJsonl
from labeling.importing.lines import RowError

__all__ = [
    "MAX_ID_CHARACTERS",
    "Argilla",
    "Beir",
    "DatasetsFolder",
    "JsonGrades",
    "LabelStudio",
    "LineImporter",
    "LineOptions",
    "MsMarcoRun",
    "MsMarcoTexts",
    "MsMarcoTop",
    "MsMarcoTriples",
    "Preferences",
    "QuepidCsv",
    "Row",
    "RowChecks",
    "RowError",
    "RowImporter",
    "Table",
    "TrecQrels",
    "TrecRun",
    "TrecTopics",
    "ZbenchJsonl",
    "ZbenchScores",
    "make_importer",
]
