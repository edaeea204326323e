"""Stored sentences: msgid and parameters survive the database, JSON and pickle; old sentences are converted."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from django.db import connection
from django.utils import translation

from labeling.migrations._sentences import convert
from labeling.stored_texts import StoredText, counted, form_for_one, read_stored, stored_json, stored_text, stored_texts
from labeling.wording import translated, translated_name
from tests.factories.rows import make_project, make_run
from workers.jobs.refinement.job import DONE
from workers.models import Run
from workers.runs.advancing import PAIRS_SPENT
from zelo_site.i18n.declared_texts import declared_texts

SPENT = stored_text("the budget of %(n)s calls is spent")


COUNTED = re.compile(
    r"(?<!of )%\((\w+)\)s (?:[a-z-]+ ){0,2}(?:queries|pairs|rows|answers|calls|questions|candidates|steps|tokens|judges|documents|texts|checkpoints)\b"
)
# Counts that are never one: those of the paper's design, windows of answers, and sums that have a minimum.
NEVER_ONE = (
    "the panel's own design asks", "%(calls)s panel calls instead of", "the recipe is complete", "its accuracy on known pairs fell",
    "it called all", "it answered all", "it preferred the document", "%(n)s answers to targets", "%(gold)s gold pairs",
    "all %(n)s answers are", "%(failed)s of its first", "%(failed)s of its last", "%(n)s questions in a row", "its trial failed",
    "the judge without examples answered none", "the taught judge answered none",
)  # fmt: skip


def column_of(run: Run) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reason FROM workers_run WHERE id = %s", [run.pk])
        return str(cursor.fetchone()[0])


@pytest.mark.django_db
@pytest.mark.usefixtures("stub_plugins")
def test_a_sentence_is_stored_as_msgid_and_parameters() -> None:
    run = make_run(make_project(queries=1))
    Run.objects.filter(pk=run.pk).update(reason=SPENT % {"n": 5})
    run.refresh_from_db()
    assert json.loads(column_of(run)) == {"msgid": SPENT, "params": {"n": 5}}
    assert run.reason == "the budget of 5 calls is spent"
    assert (run.reason.msgid, run.reason.params) == (SPENT, {"n": 5})
    run.save()
    run.refresh_from_db()
    assert run.reason.params == {"n": 5}
    assert Run.objects.filter(reason=SPENT % {"n": 5}).get() == run


@pytest.mark.django_db
@pytest.mark.usefixtures("stub_plugins")
def test_no_sentence_is_the_empty_string_and_a_free_text_stays_whole() -> None:
    run = make_run(make_project(queries=1))
    assert column_of(run) == ""
    for text in ("ValueError: 100 % of %(n)s", '{"msgid": broken'):
        run.reason = text
        run.save()
        run.refresh_from_db()
        assert run.reason == text


@pytest.mark.django_db
@pytest.mark.usefixtures("stub_plugins")
def test_finished_sentences_of_earlier_versions_are_converted_once() -> None:
    run = make_run(make_project(queries=1))
    for _ in range(2):
        with connection.cursor() as cursor:
            if column_of(run) == "":
                cursor.execute("UPDATE workers_run SET reason = 'the budget of 1,200 calls is spent'")
        with connection.schema_editor() as editor:
            convert(editor, "workers_run", "reason", [str(SPENT)])
        assert json.loads(column_of(run)) == {"msgid": SPENT, "params": {"n": "1,200"}}


def test_a_sentence_survives_json_and_pickle() -> None:
    text = SPENT % {"n": "1,200"}
    assert pickle.loads(pickle.dumps(text)).params == {"n": "1,200"}
    kept = read_stored(json.loads(json.dumps(stored_json(text))))
    assert isinstance(kept, StoredText)
    assert (kept, kept.msgid) == ("the budget of 1,200 calls is spent", SPENT)
    assert read_stored(None) == ""


def test_parameters_are_filled_in_whatever_they_hold() -> None:
    nested = SPENT % {"n": "%(n)s {x} % 5"}
    assert nested == "the budget of %(n)s {x} % 5 calls is spent"
    assert translated(nested) == nested


def test_names_made_from_a_sentence_are_translated() -> None:
    name = stored_text("judge %(name)s")
    with translation.override("de"):
        assert translated_name("judge BM25 judge", name) == "Juror BM25 judge"
        assert translated_name("Elo", name) == "Elo"


def test_a_count_of_one_has_a_sentence_of_its_own() -> None:
    for one in (1, "1"):
        found = DONE % {"name": "s", "pairs": one, "disagreements": 0}
        assert found == "student 's' refined with 1 pair, disagreements among them: 0"
        assert read_stored(json.loads(json.dumps(stored_json(found)))) == found
    assert (
        DONE % {"name": "1", "pairs": 2, "disagreements": 1}
        == "student '1' refined with 2 pairs, 1 of them disagreements"
    )
    assert PAIRS_SPENT % {"n": 0} == "the budget of 0 pairs is spent"
    with translation.override("de"):
        assert translated(PAIRS_SPENT % {"n": 1}) == "das Budget von 1 Paar ist verbraucht"
    assert form_for_one(PAIRS_SPENT.msgid) == "the budget of %(n)s pair is spent"


def test_numbers_have_the_noun_of_their_number() -> None:
    assert [counted(n, "query", "queries") for n in (0, 1, 1200)] == ["0 queries", "1 query", "1,200 queries"]
    assert (counted(1, "pair"), counted(2, "pair")) == ("1 pair", "2 pairs")


def test_every_stored_sentence_that_counts_has_a_form_for_one() -> None:
    declared = set(declared_texts()) & set(stored_texts())
    counting = {text for text in declared if COUNTED.search(text) and not text.startswith(NEVER_ONE)}
    assert len(counting) > 20, "the scan itself must find something"
    assert {text for text in counting if not form_for_one(text)} == set()
