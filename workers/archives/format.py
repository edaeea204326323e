"""The file format of a project archive: its sections, their columns, and the SQL that reads and stores each.

A gzip file of JSON lines. The first line is the header; then each section has a line {"section", "columns"} and one JSON
array a row, in the order of `SECTIONS`; the last line holds the row counts and the SHA-256 of all bytes before it, which
is also what makes a cut file visible. Rows name each other by numbers of the archive.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "zelo-archive"
VERSION = 2  # archives of version 1 are read too
SUFFIX = ".zelo.gz"
LONGEST_LINE = 64 << 20


@dataclass(frozen=True, slots=True)
class Section:
    """One table. `columns`: (name, SQL type); `read`: the FROM part that finds the project's rows as `row`.

    `references`: column to the section that it names, whose rows get new numbers. `numbered`: whether rows have an `id`
    of their own, and `order` sorts them otherwise. `since`: the first version with this section; `added`: the last columns,
    which version 1 lacks.
    """

    name: str
    table: str
    columns: tuple[tuple[str, str], ...]
    read: str
    references: tuple[tuple[str, str], ...] = ()
    numbered: bool = True
    order: str = "row.id"
    since: int = 1
    added: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def names_in(self, version: int) -> list[str]:
        """The columns in an archive of this version."""
        return self.names if version > 1 else self.names[: len(self.columns) - len(self.added)]


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    """Columns written as "name type, name type"."""
    return tuple((name, kind) for name, _, kind in (each.strip().partition(" ") for each in text.split(",")))


_QUERIES = "(SELECT id FROM labeling_query WHERE project_id = %(project)s)"
_ANNOTATORS = "(SELECT id FROM labeling_annotator WHERE project_id = %(project)s)"
_OF_PROJECT = "WHERE row.project_id = %(project)s"
# Pairs across queries have no query of their own.
_OF_PAIRS = f"""JOIN labeling_pair pair ON pair.id = row.pair_id JOIN labeling_candidate first ON first.id = pair.a_id
    WHERE first.query_id IN {_QUERIES}"""
_OF_JUDGMENTS = f"""JOIN labeling_judgment judgment ON judgment.id = row.judgment_id
    WHERE judgment.annotator_id IN {_ANNOTATORS}"""
_FIT = """rater text, prior_precision float8, logit_scale float8, dispersion float8, gradient_norm float8, iterations int,
    islands int, pairs int, judgments int, threshold float8, bias float8, bias_stderr float8, bias_island int, calibration_version int,
    calibration_id bigint, project_version int, judged_version bigint, error text, fitted_at timestamptz"""

SECTIONS: tuple[Section, ...] = (
    Section(
        "documents", "labeling_document", _columns("id bigint, external_id text, text text, metadata jsonb"), _OF_PROJECT
    ),
    Section(
        "queries", "labeling_query",
        _columns("""id bigint, external_id text, text text, domain text, metadata jsonb, judged_version bigint,
            excluded_at timestamptz"""), _OF_PROJECT, added=("excluded_at",),
    ),
    Section(
        "candidates", "labeling_candidate",
        _columns("id bigint, query_id bigint, document_id bigint, first_stage_rank int, first_stage_score float8, grade int"),
        f"WHERE row.query_id IN {_QUERIES}", (("query_id", "queries"), ("document_id", "documents")),
    ),
    Section(
        "unmatched_grades", "labeling_unmatchedgrade",
        _columns("query_external_id text, document_external_id text, grade int"), _OF_PROJECT, numbered=False,
    ),
    Section(
        "annotators", "labeling_annotator",
        _columns("""id bigint, name text, is_person bool, plugin text, options jsonb, prompt_hash text, model_revision text,
            config_hash text, paused_at timestamptz, pause_reason text, retired_at timestamptz, created_at timestamptz"""),
        _OF_PROJECT,
    ),
    Section(
        "pairs", "labeling_pair", _columns("id bigint, a_id bigint, b_id bigint, query_id bigint"),
        f"JOIN labeling_candidate first ON first.id = row.a_id WHERE first.query_id IN {_QUERIES}",
        (("a_id", "candidates"), ("b_id", "candidates"), ("query_id", "queries")),
    ),
    Section(
        "judgments", "labeling_judgment",
        _columns("""id bigint, pair_id bigint, annotator_id bigint, by_person bool, swapped bool, kind text,
            preference float8, truncated bool, call bigint, call_size int, place_a int, place_b int,
            created_at timestamptz, superseded_at timestamptz"""),
        f"WHERE row.annotator_id IN {_ANNOTATORS}",
        (("pair_id", "pairs"), ("annotator_id", "annotators"), ("call", "calls")),
    ),
    Section(
        "rationales", "labeling_rationale", _columns("judgment_id bigint, text text"), _OF_JUDGMENTS,
        (("judgment_id", "judgments"),), numbered=False, order="row.judgment_id",
    ),
    Section(
        "seen_answers", "labeling_told", _columns("judgment_id bigint"), _OF_JUDGMENTS,
        (("judgment_id", "judgments"),), numbered=False, order="row.judgment_id",
    ),
    Section(
        "model_grades", "labeling_modelgrade",
        _columns("annotator_id bigint, candidate_id bigint, value float8, created_at timestamptz"),
        f"WHERE row.annotator_id IN {_ANNOTATORS}",
        (("annotator_id", "annotators"), ("candidate_id", "candidates")), numbered=False,
    ),
    Section(
        "rater_grades",
        "labeling_ratergrade",
        _columns("annotator_id bigint, query_external_id text, document_external_id text, grade int"),
        f"WHERE row.annotator_id IN {_ANNOTATORS}",
        (("annotator_id", "annotators"),),
        numbered=False,
    ),
    Section(
        "gold_answers", "labeling_goldanswer",
        _columns("pair_id bigint, preference float8, explanation text, created_at timestamptz"), _OF_PAIRS,
        (("pair_id", "pairs"),), numbered=False,
    ),
    Section(
        "spot_checks", "labeling_spotcheck",
        _columns("""pair_id bigint, slot int, reason text, priority int, holder_id bigint, swapped bool, judgment_id bigint,
            seconds float8, created_at timestamptz"""),
        _OF_PAIRS, (("pair_id", "pairs"), ("holder_id", "annotators"), ("judgment_id", "judgments")), numbered=False,
    ),
    Section(
        "adjudications", "scoring_adjudication",
        _columns("pair_id bigint, judgment_id bigint, replaced_id bigint, at timestamptz"), _OF_PAIRS,
        (("pair_id", "pairs"), ("judgment_id", "judgments"), ("replaced_id", "judgments")), numbered=False,
    ),
    Section(
        "calibrations", "scoring_calibration",
        _columns("""id bigint, version int, method text, parameters jsonb, prior_precision float8, answers int, ece float8,
            islands int, created_at timestamptz"""), _OF_PROJECT,
    ),
    Section(
        "project_fits", "scoring_projectfit",
        _columns("""version int, rater text, prior_precision float8, cross_validated bool, dispersion float8, losses jsonb,
            pairs bigint, judge_terms jsonb, correlations jsonb, says_neither jsonb, judgments bigint, chosen_at timestamptz,
            calibrated_version int, calibrated_at timestamptz"""),
        _OF_PROJECT, numbered=False, order="row.project_id",
    ),
    Section(
        "judge_fits", "scoring_judgefit",
        _columns("""annotator_id bigint, sharpness float8, sharpness_stderr float8, position_bias float8,
            position_bias_stderr float8, dispersion float8, weight float8, votes int, anchors int, call_correlation float8,
            call_correlation_stderr float8, calls int, fitted_at timestamptz"""),
        f"WHERE row.annotator_id IN {_ANNOTATORS}", (("annotator_id", "annotators"),), numbered=False,
        order="row.annotator_id",
    ),
    Section(
        "query_fits", "scoring_queryfit", _columns(f"query_id bigint, {_FIT}"), f"WHERE row.query_id IN {_QUERIES}",
        (("query_id", "queries"), ("calibration_id", "calibrations")), numbered=False, order="row.query_id",
    ),
    Section(
        "scores", "scoring_score",
        _columns("""candidate_id bigint, theta float8, stderr float8, elo float8, elo_stderr float8, relevance float8,
            calibrated bool, comparisons int, island int, undefeated bool, winless bool, judged_version bigint,
            fitted_at timestamptz"""),
        f"JOIN labeling_candidate candidate ON candidate.id = row.candidate_id WHERE candidate.query_id IN {_QUERIES}",
        (("candidate_id", "candidates"),), numbered=False, order="row.candidate_id",
    ),
    Section(
        "runs", "workers_run",
        _columns("""id bigint, query_ids jsonb, sampler text, sampler_options jsonb, allocation text, cascade_first_id bigint,
            cascade_threshold float8, orders text, seed bigint, pair_budget bigint, call_budget bigint, token_budget bigint,
            cost_budget_micros bigint, state text, round int, pairs_planned bigint, tasks_planned bigint,
            created_at timestamptz, started_at timestamptz, finished_at timestamptz"""),
        _OF_PROJECT, (("cascade_first_id", "annotators"),),
    ),
    Section(
        "run_judges", "workers_run_judges", _columns("run_id bigint, annotator_id bigint"),
        "JOIN workers_run run ON run.id = row.run_id WHERE run.project_id = %(project)s",
        (("run_id", "runs"), ("annotator_id", "annotators")), numbered=False,
    ),
    Section(
        "caps", "workers_caps", _columns("calls bigint, tokens bigint, cost_micros bigint"), _OF_PROJECT, numbered=False,
        order="row.project_id",
    ),
    Section(
        "query_figures", "workers_queryfigures",
        _columns("""query_id bigint, ndcg float8, certainty float8, disagreement float8, spend_micros bigint, gain float8,
            fitted_at timestamptz, measured_at timestamptz"""),
        f"WHERE row.query_id IN {_QUERIES}", (("query_id", "queries"),), numbered=False, order="row.query_id", since=2,
    ),
    Section(
        "certainty_points", "workers_certaintypoint",
        _columns("at timestamptz, certainty float8, lowest float8, queries int"), _OF_PROJECT, numbered=False, since=2,
    ),
    # The views of whoever exports, which become those of the new project's owner.
    Section(
        "saved_views", "zelo_site_savedview", _columns("name text, address text"),
        f"{_OF_PROJECT} AND row.user_id = %(user)s", numbered=False, since=2,
    ),
)  # fmt: skip

# Values that are not read as they are stored, by section and column.
READ_AS = {
    ("runs", "query_ids"): "to_jsonb(row.query_ids)",
    # A run that was not finished goes nowhere else.
    ("runs", "state"): "CASE WHEN row.state IN ('finished', 'failed') THEN row.state ELSE 'cancelled' END",
    ("runs", "finished_at"): "COALESCE(row.finished_at, now())",
    # A hash of the account's number says nothing elsewhere.
    ("annotators", "config_hash"): "CASE WHEN row.is_person THEN 'person ' || row.id ELSE row.config_hash END",
}
PSEUDONYM = "CASE WHEN row.is_person THEN 'person ' || row_number() OVER (PARTITION BY row.is_person ORDER BY row.id) ELSE row.name END"

# The project's own settings, in the header.
SETTINGS = (
    "name", "instruction", "rubric", "rater", "rater_options", "calibration_version", "gold_every", "gold_feedback",
    "gold_answers", "gold_accuracy", "gold_tolerance", "show_others_after", "hidden_metadata", "lease_s",
)  # fmt: skip
