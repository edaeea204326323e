"""The import page in a real browser: every format is detected, and a table's columns are corrected in the preview."""

from __future__ import annotations

import base64

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.importing.formats import Table
from labeling.models import Candidate, Project
from labeling.plugins import get_plugin, registered
from tests.browser.checks import Start, serious_faults
from tests.browser.conftest import LOOKS
from tests.factories.pages import make_project, make_user
from tests.labeling.importing.files import load, row

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TABLE = "nr;Suchbegriff;text;note\n" + "".join(
    f"{number // 4};how large do goldfish grow in pond {number // 4};answer {number} of several words;{number % 3}\n"
    for number in range(40)
)
BAD = "41;;an answer without a query;1\n42;who;an answer;many\n43;who;another answer;many\n"


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_superuser=True, is_staff=True)


@pytest.fixture
def project(owner: User) -> Project:
    return make_project(owner, name="Ponds")


@pytest.mark.parametrize("look", LOOKS)
def test_columns_are_corrected_in_the_preview(visit: Start, owner: User, project: Project, look: str) -> None:
    visited = visit(owner, look=look)
    page = visited.open(reverse("import", args=[project.slug]))
    data = (TABLE + BAD).encode()
    page.set_input_files("#file", {"name": "answers.csv", "mimeType": "text/csv", "buffer": data})
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview h2")).to_contain_text("Table")
    assert page.locator("#preview tbody tr").count() >= 10
    for role, column in {"query": "Suchbegriff", "query_id": "nr", "grade": "note"}.items():
        page.select_option(f"#format-{role}", column)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("grade: expected a whole number")
    expect(page.locator("#format-query")).to_have_value("Suchbegriff")
    assert not serious_faults(visited)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    visited.picture(f"import-{look}")
    page.check("#leave_out")
    page.locator("#import-form button.main").click()
    expect(page.get_by_text("2 left out, grade").first).to_be_visible()
    assert Candidate.objects.filter(query__text__contains="pond").count() == 40
    assert not visited.complaints


DROP = """async (form, [name, data]) => {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], name));
    for (const kind of ["dragover", "drop"]) {
        form.dispatchEvent(new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
    }
}"""


def test_every_format_is_detected_when_it_is_dropped(visit: Start, owner: User, project: Project) -> None:
    load(project, row("q1", "d1", "d2", "d3"))  # the example of judgments names them
    visited = visit(owner)
    page = visited.open(reverse("import", args=[project.slug]))
    for name in registered("importer"):
        plugin = get_plugin("importer", name)
        example = getattr(plugin, "example")  # noqa: B009  a third-party importer need not have one
        page.locator("#import-form").evaluate(DROP, ["data", base64.b64encode(example).decode()])
        expect(page.locator("#preview h2 .help")).to_have_text(plugin.label)
        expect(page.locator("#preview")).to_contain_text("no errors")
        assert page.locator("#format-query_id").count() == int(issubclass(plugin, Table))
    assert not visited.complaints


ANSWERS = "query,a,b,winner,annotator\n" + "".join(
    f"q1,{a},{b},{winner},{who}\n"
    for who, winner in (("anna", "a"), ("ben", "b"))
    for a, b in (("d1", "d2"), ("d2", "d3"), ("d9", "d1"))
)
RATINGS = "query_id,document_id,grade,rater\n" + "".join(
    f"q1,d{number % 3 + 1 if number < 3 else number},{(number + shift) % 4},{who}\n"
    for who, shift in (("anna", 0), ("ben", 1))
    for number in range(12)
)


@pytest.mark.parametrize("look", LOOKS)
def test_judgments_are_imported_left_out_rows_downloaded_and_all_is_exported(
    visit: Start, owner: User, project: Project, look: str
) -> None:
    load(project, row("q1", "d1", "d2", "d3"))
    visited = visit(owner, look=look)
    page = visited.open(reverse("import", args=[project.slug]))
    for name, data in (("answers.csv", ANSWERS), ("ratings.csv", RATINGS)):
        page.goto(page.url.split("/p/")[0] + reverse("import", args=[project.slug]))
        page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": data.encode()})
        page.get_by_role("button", name="Preview").click()
        expect(page.locator("#preview")).to_contain_text("Annotators: anna, ben")
        if name == "answers.csv":
            expect(page.locator("#format-winner")).to_have_value("winner")
            visited.picture(f"import-judgments-{look}")
        page.check("#leave_out")
        page.locator("#import-form button.main").click()
        expect(page.get_by_role("status").first).to_contain_text("new")
    page.goto(page.url.split("/p/")[0] + reverse("imports", args=[project.slug]))
    expect(page.get_by_role("region", name="Raters")).to_contain_text("anna")
    with page.expect_download() as download:
        page.get_by_role("link", name="Rows of answers.csv that were left out, as CSV").click()
    assert download.value.path().read_text().count("\n") == 3
    for address in ("imports", "exports"):
        page.goto(page.url.split("/p/")[0] + reverse(address, args=[project.slug]))
        assert not serious_faults(visited)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
        visited.picture(f"{address}-{look}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download Judgments as CSV").press("Enter")
    assert download.value.path().read_text().count("\n") == 5
    assert not visited.complaints
