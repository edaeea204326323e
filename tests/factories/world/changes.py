"""Changes to `site_world` before a request that is audited, and the files that such requests send."""

from __future__ import annotations

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django_otp.oath import totp
from django_otp.plugins.otp_totp.models import TOTPDevice

from labeling.access.annotators import get_judge
from labeling.access.api_keys import make_token
from labeling.access.links import make_link
from labeling.access.second_factor import new_device
from labeling.annotation.gold import set_gold
from labeling.models import Annotator, ApiToken, Pair, Project, Query, SpotCheck
from scoring.annotators.adjudication import adjudicate
from scoring.models import Snapshot
from scoring.spot_checks.plans import plan_spot_checks
from tests.factories.pages import make_query
from tests.factories.rows import answer_queries, judge_pair, make_judges, make_pair
from tests.factories.scored import scored
from tests.factories.world.site import World
from trainer.models import Reranker, TrainingRun
from workers.archives.exporting import stream_archive
from workers.endpoints.stored.changes import retire_endpoint
from workers.jobs.teaching.job import order_teaching
from workers.judging.pausing import pause_judge, retire_judge
from workers.models import Job, JudgingTask, ProviderBatch, Run

LINE = {
    "query": {"id": "new", "query": "which?"},
    "documents": [{"id": "a", "content": "x"}, {"id": "b", "content": "y"}],
}
DATA = json.dumps(LINE)


def the_project(world: World) -> Project:
    return Project.objects.get(slug=world.known["slug"])


def the_run(world: World) -> Run:
    return Run.objects.get(pk=world.known["run_id"])


def the_pair(world: World) -> Pair:
    return Pair.objects.get(pk=world.known["pair_id"])


def the_judge(world: World) -> Annotator:
    return Annotator.objects.get(pk=world.known["annotator_id"])


def a_judge_at_work(world: World) -> None:
    """The run's judge is one that can answer, so that further runs can be ordered of it."""
    judge = get_judge(the_project(world), "test-longer", {})
    the_run(world).judges.set([judge])
    Run.objects.filter(pk=world.known["run_id"]).update(state=Run.State.FINISHED)
    world.known["annotator_id"] = judge.pk


def a_judge_to_teach(world: World) -> None:
    """A language model at the stored endpoint, and people's answers to enough queries."""
    judge = get_judge(the_project(world), "openai-http", {"endpoint": "stored", "model": "m"})
    answer_queries(the_project(world), queries=12, pairs=1)
    world.known["annotator_id"] = judge.pk


def an_open_teaching(world: World) -> None:
    a_judge_to_teach(world)
    world.known["teaching_id"] = order_teaching(Annotator.objects.get(pk=world.known["annotator_id"])).pk


def nobody_asked(world: World) -> None:
    """The pair waits for no person yet."""
    SpotCheck.objects.filter(pair=world.known["pair_id"]).delete()


def scores(world: World) -> None:
    a_judge_at_work(world)
    world.known["query_id"] = scored(the_project(world), queries=12, prefix="scored-")[0].pk


def a_circle(world: World) -> None:
    """Another judge contradicts itself about three documents, and the run's judge has not been asked."""
    a_judge_at_work(world)
    query = make_query(the_project(world), size=3)
    (other,) = make_judges(the_project(world))
    for first, second, preference in ((0, 1, 0.9), (1, 2, 0.9), (0, 2, 0.1)):
        judge_pair(make_pair(query, first, second), other, preference)


def a_paused_run(world: World) -> None:
    Run.objects.filter(pk=world.known["run_id"]).update(state=Run.State.PAUSED)


def a_failed_question(world: World) -> None:
    JudgingTask.objects.create(
        run=the_run(world), pair=the_pair(world), annotator=the_judge(world), swapped=True, state="dead",
        reason="refusal",
    )  # fmt: skip


def a_paused_judge(world: World) -> None:
    pause_judge(the_judge(world), "for a look")


def a_paused_person(world: World) -> None:
    person = Annotator.objects.create(
        project=the_project(world), user=world.users["viewer"], name="viewer", is_person=True, config_hash="f" * 64
    )
    Annotator.objects.filter(pk=person.pk).update(paused_at="2026-01-02T03:04:05Z", pause_reason="2 of 5 right")


def no_job(world: World) -> None:
    Job.objects.filter(project=the_project(world)).update(state=Job.State.FINISHED)


def a_password(world: World) -> None:
    world.users["owner"].set_password("long and secret")
    world.users["owner"].save()


def a_second_factor(world: World) -> None:
    """The viewer has one; the owner, a superuser, may reset it."""
    a_superuser(world)
    TOTPDevice.objects.create(user=world.users["viewer"], confirmed=True)


def a_code(world: World) -> str:
    """The code that the owner's new device shows now."""
    device = new_device(world.users["owner"])
    return f"{totp(device.bin_key, device.step, device.t0, device.digits):06}"


def a_sign_in_link(world: World) -> None:
    world.known["token"] = make_link(world.users["owner"])


def a_key(world: World) -> None:
    make_token(world.users["owner"], name="old")
    world.known["key_id"] = ApiToken.objects.get(name="old").pk


def a_superuser(world: World) -> None:
    world.users["owner"].is_superuser = True
    world.users["owner"].save()


def a_retired_endpoint(world: World) -> None:
    a_superuser(world)
    retire_endpoint("stored")


def gold(world: World) -> None:
    set_gold(world.known["pair_id"], 0.95)


def a_verdict(world: World) -> None:
    adjudicate(the_pair(world), world.users["owner"], "1")


def a_gold_verdict(world: World) -> None:
    a_verdict(world)
    gold(world)


def a_gold_plan(world: World) -> None:
    a_verdict(world)
    world.known["plan_id"] = plan_spot_checks(the_project(world), reason="gold", pairs=1).plan.pk


def a_stopped_training(world: World) -> None:
    TrainingRun.objects.filter(pk=world.known["training_id"]).update(state=TrainingRun.State.CANCELLED)


def an_open_distillation(world: World) -> None:
    Job.objects.filter(pk=world.known["distillation_id"]).update(state=Job.State.OPEN)


def queries_to_distil(world: World) -> None:
    """Two queries more: a distilled run needs three."""
    for _ in range(2):
        make_query(the_project(world))


def an_open_refinement(world: World) -> None:
    Job.objects.filter(pk=world.known["refinement_id"]).update(state=Job.State.OPEN)


def a_student_to_refine(world: World) -> None:
    """The reranker was trained on a snapshot with enough dev queries."""
    splits = {"train": {"rows": 5, "queries": 5}, "dev": {"rows": 5, "queries": 5}}
    Snapshot.objects.filter(pk=world.known["snapshot_id"]).update(manifest={"splits": splits})
    Reranker.objects.filter(pk=world.known["reranker_id"]).update(training_run=world.known["training_id"])


def an_open_recipe(world: World) -> None:
    Job.objects.filter(recipe=world.known["recipe_id"]).update(state=Job.State.OPEN)


def a_held_back_student(world: World) -> None:
    run = TrainingRun.objects.get(pk=world.known["training_id"])
    TrainingRun.objects.filter(pk=run.pk).update(state=TrainingRun.State.HELD_BACK)
    Reranker.objects.create(project=run.project, training_run=run, name="worse", kind="trained", release="held_back")


def rows_to_learn_from(world: World) -> None:
    splits = {"train": {"rows": 5}, "test": {"rows": 5}}
    Snapshot.objects.filter(pk=world.known["snapshot_id"]).update(manifest={"splits": splits})


def grades_before(world: World) -> None:
    query = Query.objects.get(pk=world.known["query_id"])
    query.candidates.update(grade=1)
    world.known["query_name"] = query.external_id
    world.known["document_name"] = query.candidates.order_by("id")[0].document.external_id


def a_run_file(world: World) -> Any:
    name = Query.objects.get(pk=world.known["query_id"]).external_id
    return SimpleUploadedFile("today.trec", f"{name} Q0 d0 1 1.0 today\n".encode())


def recorded_answers(world: World) -> Any:
    """A file with one recorded answer about a pair of the project."""
    query = Query.objects.get(pk=world.known["query_id"])
    a, b = query.candidates.order_by("id").values_list("document__external_id", flat=True)[:2]
    row = {"query": query.external_id, "a": a, "b": b, "winner": "a"}
    return SimpleUploadedFile("answers.jsonl", json.dumps(row).encode())


def new_data(world: World) -> Any:
    return SimpleUploadedFile("new.jsonl", DATA.encode())


def new_grades(world: World) -> Any:
    return SimpleUploadedFile("qrels.txt", f"{world.known['query_name']} 0 {world.known['document_name']} 3\n".encode())


def a_retired_judge(world: World) -> None:
    retire_judge(the_judge(world))


def a_run_to_delete(world: World) -> None:
    """Its batch has ended."""
    ProviderBatch.objects.filter(run=the_run(world)).delete()
    world.known["target_id"] = world.known["run_id"]


def an_account(world: World) -> None:
    world.known["viewer"] = world.users["viewer"].get_username()


def an_exported_project(world: World) -> None:
    world.known["archive"] = b"".join(stream_archive(the_project(world)))


def an_archive(world: World) -> Any:
    return SimpleUploadedFile("project.zelo.gz", world.known["archive"])
