"""The frame: navigation by role, breadcrumb, palette, documentation."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from labeling.models import Document, Membership, Project
from tests.factories.pages import candidates_of, make_project, make_query, make_run, make_user, page
from tests.factories.world.site import EVERY_PAGE
from zelo_site.pages.shell.documentation import FOLDER, document, document_titles
from zelo_site.pages.shell.markdown import render_markdown
from zelo_site.pages.shell.navigation import BELOW, GROUPS, HELP, groups_for, help_of

pytestmark = pytest.mark.django_db


# --- navigation --------------------------------------------------------------------------


def test_every_page_of_the_navigation_exists_once() -> None:
    names = [each.name for group in GROUPS for each in group.pages]
    assert len(set(names)) == len(names)
    assert {*names, *BELOW, *BELOW.values(), *HELP} <= set(EVERY_PAGE)


def test_every_help_leads_to_a_heading_of_a_document() -> None:
    for name in HELP:
        doc, anchor = help_of(name)
        found = document(doc)
        assert found is not None, name
        assert not anchor or f'id="{anchor}"' in found.html, f"{name}: {doc}#{anchor}"


def test_viewers_see_no_pages_of_owners_and_annotators_see_none() -> None:
    names = {role: {each.name for group in groups_for(role) for each in group.pages} for role in ("owner", "viewer")}
    assert names["owner"] - names["viewer"] == {"import", "settings", "webhooks", "audit", "new-run", "compare"}
    assert groups_for("annotator") == groups_for("") == []


def test_the_open_page_is_marked_and_its_way_is_shown(client: Client, project: Project) -> None:
    query = make_query(project)
    html = page(client, "query", project.slug, query.pk)
    assert re.search(r'class="group here".*?Data', html, re.S)
    assert f'href="{reverse("queries", args=[project.slug])}" aria-current="page"' in html
    crumbs = html[html.index('class="crumbs"') :].split("</nav>")[0]
    assert re.sub(r"<[^>]+>", " ", crumbs).split()[-2:] == ["Data", "Queries"]
    assert f'href="{reverse("doc", args=["scoring"])}"' in html


@pytest.mark.parametrize(("what", "way"), [("query", ["Data", "Queries"]), ("run", [])])
def test_pages_of_deletion_and_of_runs_open_below_what_they_concern(
    client: Client, project: Project, what: str, way: list[str]
) -> None:
    row = make_query(project) if what == "query" else make_run(project, state="finished")
    html = page(client, "delete", project.slug, what, row.pk)
    crumbs = html[html.index('class="crumbs"') :].split("</nav>")[0]
    assert re.findall(r">([^<>›]+)</", crumbs) == [project.name, *way]


def test_the_comparison_screen_keeps_its_own_head(client: Client, project: Project) -> None:
    html = page(client, "my-answers", project.slug)
    assert "palette" not in html and "crumbs" not in html and "shell.js" not in html


def test_the_frame_asks_the_database_for_nothing_more(client: Client, project: Project) -> None:
    with CaptureQueriesContext(connection) as queries:
        page(client, "jobs")
    bare = len(queries)
    with CaptureQueriesContext(connection) as queries:
        page(client, "docs")
    assert len(queries) <= 3 <= bare  # session, user


# --- the palette -------------------------------------------------------------------------


def found(client: Client, **sent: Any) -> list[str]:
    html = client.get(reverse("find"), sent).content.decode()
    return [re.sub(r"<[^>]+>", "|", each) for each in re.findall(r"<a .*?</a>|<p>.*?</p>", html, re.S)]


def test_pages_are_found_by_words_in_any_order(client: Client, project: Project) -> None:
    hits = found(client, q="run new", p=project.slug)
    assert "New run" in hits[0] and "Judging" in hits[0]
    assert "Training" in found(client, q="train", p=project.slug)[0]
    assert any("Documentation" in each for each in found(client, q="budgets"))
    assert "Nothing fits" in found(client, q="zzzz")[0]
    assert not any("Admin" in each for each in found(client, q="admin"))


def test_texts_of_queries_and_documents_are_found(client: Client, project: Project) -> None:
    query = make_query(project, text="keep the last <b>lines</b>", words="ring buffer")
    candidate = candidates_of(query)[1]
    Document.objects.filter(pk=candidate.document_id).update(text="x " * 60 + "a BOUNDED deque & more")
    assert "keep the last &lt;b&gt;lines&lt;/b&gt;" in found(client, q="LAST <b>", mode="texts", p=project.slug)[0]
    hits = client.get(reverse("find"), {"q": "bounded deque", "mode": "texts"}).content.decode()
    address = f"{reverse('query', args=[project.slug, query.pk])}?document={candidate.pk}#d{candidate.pk}"
    assert f'href="{address}"' in hits and "BOUNDED deque &amp; more" in hits
    assert "two letters" in found(client, q="x", mode="texts")[0]


def test_annotators_and_strangers_find_no_text(project: Project) -> None:
    make_query(project, text="secret query", words="secret document")
    annotator = make_user("annotator")
    Membership.objects.create(project=project, user=annotator, role="annotator")
    for user in (annotator, make_user("stranger")):
        client = Client()
        client.force_login(user)
        for sent in ({"q": "secret", "mode": "texts"}, {"q": "secret", "mode": "texts", "p": project.slug}):
            assert "Nothing fits" in found(client, **sent)[0]


def test_projects_are_found_by_name(client: Client, owner: Any, project: Project) -> None:
    make_project(owner, name="Legal search")
    make_project(name="Of somebody else")
    assert len(found(client, mode="projects")) == 2
    assert "Legal search" in found(client, q="legal", mode="projects")[0]
    assert "Nothing fits" in found(client, q="somebody", mode="projects")[0]


def test_a_search_of_all_texts_ends_in_time(client: Client, project: Project, monkeypatch: Any) -> None:
    monkeypatch.setattr("zelo_site.pages.shell.finding.SEARCH_MS", 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO labeling_document (project_id, external_id, text, metadata) "
            "SELECT %s, n::text, repeat(md5(n::text), 200), '{}' FROM generate_series(1, 1500) n",
            [project.pk],
        )
    assert "took too long" in found(client, q="not there", mode="texts")[0]


# --- the documentation -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.md")))
def test_every_document_is_shown_and_its_links_lead_somewhere(name: str, client: Client, owner: Any) -> None:
    html = page(client, "doc", name)
    article = html[html.index('class="prose"') : html.index("</article>")]
    for address in re.findall(r'href="(/[^"]*|#[^"]*)"', article):
        path, _, anchor = address.partition("#")
        target = document(path.strip("/").rpartition("/")[2] if path else name)
        assert target is not None, address
        assert not anchor or f'id="{anchor}"' in target.html, address
    for address in re.findall(r'src="([^"]*)"', article):
        assert client.get(address).status_code == 200, address


def test_the_list_names_every_document(client: Client, owner: Any) -> None:
    html = page(client, "docs")
    assert len(document_titles()) == len(list(FOLDER.glob("*.md")))
    assert all(reverse("doc", args=[name]) in html for name in document_titles())


@pytest.mark.parametrize("address", ["/docs/no-such/", "/docs/images/none.png", "/docs/images/..%2F..%2Fsettings.py"])
def test_nothing_else_is_served(address: str, client: Client, owner: Any) -> None:
    assert client.get(address).status_code == 404


def test_markup_and_scripts_in_a_document_are_text() -> None:
    text = "# A <b>title</b>\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) ![i](data:text/html,x)\n\n## Same\n\n## Same\n"
    shown = render_markdown(text, link=str, image=str)
    assert "<script" not in shown.html and "<b>" not in shown.html
    assert "javascript:" not in re.sub(r">[^<]*<", "><", shown.html)
    assert [each.anchor for each in shown.headings] == ["same", "same-1"]


def test_the_icon_of_pages_that_name_none_is_the_mark(client: Client) -> None:
    answer = client.get("/favicon.ico")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert b"<svg" in answer.content
