"""The monitor's page in a real browser without a window (Chromium): what is drawn, found and followed, and what stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain
from litetq.message import Message, Plan
from tests.browser import Browser, missing_tool
from tests.conftest import missing
from tests.system.test_monitor import shown
from tests.waiting import eventually

LONG = 30.0  # seconds
HOSTILE = '<img src=x onerror="document.title=\'owned\'">\x1b[31mred\u202e<script>document.title="owned"</script>'
SEEN = '<img src=x onerror="document.title=\'owned\'">\\x1b[31mred\\u202e<script>document.title="owned"</script>'

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    tool = missing_tool()
    if tool is not None:
        missing(f"{tool} is not on PATH: apt-get install chromium chromium-driver")
    with Browser() as browser:
        yield browser


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y: x + y)


@pytest.fixture
def site(app: LiteTQ, browser: Browser) -> Iterator[str]:
    """The address of the page; at the end its console must have said nothing."""
    app.engine.workers()
    browser.complaints()  # those of other tests
    with shown(app) as ask:
        yield f"http://127.0.0.1:{ask.port}/"
        browser.go("about:blank")  # it looks no more
    assert browser.complaints() == []


def rows(browser: Browser) -> list[str]:
    """Return the rows of the first table, with spaces for what separates cells."""
    return [" ".join(text.split()) for text in browser.texts("table:first-of-type tbody tr")]


def names(browser: Browser) -> list[str]:
    return browser.texts("#found td.name > a")


def test_rows_appear_without_a_reload(app: LiteTQ, add: Any, browser: Browser, site: str) -> None:
    browser.go(f"{site}tasks")
    assert eventually(lambda: browser.texts("#found .empty")) == ["No task yet."]
    browser.run("window.same = true")
    sent = add.delay(1, 2)
    (row,) = eventually(lambda: rows(browser))
    assert row.startswith(f"QUEUED add {sent.id} celery ") and row.endswith(" ago (1, 2)")
    with app.run_embedded(concurrency=1, hostname="w@here"):
        assert sent.get(timeout=LONG) == 3
    (row,) = eventually(lambda: (r := rows(browser)) and r[0].startswith("SUCCESS") and r)
    assert row.endswith("w@here (1, 2) → 3") and browser.run("return window.same") is True
    title = browser.run("return document.querySelector('#found time').title")
    assert title.split("T")[0] == browser.run("return new Date().toISOString()").split("T")[0]


def test_filters_find_what_they_say(app: LiteTQ, add: Any, browser: Browser, site: str) -> None:
    with app.run_embedded(concurrency=1, queues=["celery"]):
        add.delay("needle", "!").get(timeout=LONG)
    app.send_task("reports.build", (1,), queue="mail")
    app.send_task("reports.send", (2,))
    browser.go(f"{site}tasks")
    assert eventually(lambda: names(browser)) == ["reports.send", "reports.build", "add"]
    browser.write("input[name=name]", "reports")
    eventually(lambda: names(browser) == ["reports.send", "reports.build"])
    browser.write("input[name=name]", "*.build")
    eventually(lambda: names(browser) == ["reports.build"])
    assert browser.run("return location.search") == "?name=*.build"
    browser.write("input[name=name]", "\ue007")  # Enter, which must send nothing
    eventually(lambda: len(names(browser)) == 3)
    for selector, found in (
        ("select[name=state] option[value=success]", ["add"]),
        ("select[name=state] option[value='']", ["reports.send", "reports.build", "add"]),
        ("select[name=queue] option[value=mail]", ["reports.build"]),
        ("select[name=queue] option[value='']", ["reports.send", "reports.build", "add"]),
    ):
        eventually(lambda selector=selector: browser.run("return !!document.querySelector(arguments[0])", selector))  # type: ignore[misc]
        browser.click(selector)
        eventually(lambda found=found: names(browser) == found)  # type: ignore[misc]
    browser.write("input[name=text]", "needle")
    eventually(lambda: names(browser) == ["add"])
    browser.go(browser.run("return location.href"))  # the address holds the filter
    assert eventually(lambda: names(browser)) == ["add"]
    assert browser.run("return document.querySelector('input[name=text]').value") == "needle"


def test_a_hostile_task_stays_text(app: LiteTQ, browser: Browser, site: str) -> None:
    """Its name, id, queue, arguments, result and error reach every page that shows them."""

    @app.task(name=HOSTILE)
    def fail(text: str) -> None:
        raise ValueError(text)

    with app.run_embedded(concurrency=1, hostname=f"{HOSTILE[:20]}@here", queues=["celery"]):
        result = fail.apply_async((HOSTILE,), task_id=HOSTILE)
        with pytest.raises(ValueError):
            result.get(timeout=LONG)
        chain(fail.si(HOSTILE), fail.si(HOSTILE))()
        app.schedule.add(HOSTILE, HOSTILE, 3600.0)
        fail.apply_async((HOSTILE,), queue=HOSTILE)
        for page in ("", "tasks", "workers", "queues", "schedule", "file"):
            browser.go(f"{site}{page}")
            eventually(lambda: browser.texts("#pulse") == ["live"])
            assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
        browser.go(f"{site}tasks?state=failure")
        shown_names = eventually(lambda: names(browser))
        assert set(shown_names) == {SEEN}
        browser.click("#found tr:last-child td.name > a")
        eventually(lambda: browser.texts("#task h1"))
        assert browser.texts("#task h1")[0].startswith(SEEN)
        facts = "\n".join(browser.texts("main"))
        assert SEEN in browser.texts("#task dd .mono")[0] and facts.count("\\x1b[31m") >= 4
    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("return document.title") == "task · litetq"
    assert "\u202e" not in browser.run("return document.body.textContent") and "\x1b" not in facts


def test_the_policy_of_the_page_lets_no_markup_in(app: LiteTQ, browser: Browser, site: str) -> None:
    """Should a line of the page ever use innerHTML, the browser refuses it."""
    app.send_task("any")
    browser.go(f"{site}tasks")
    eventually(lambda: rows(browser))
    refused = browser.run("try { document.body.innerHTML = '<b>x</b>'; return '' } catch (error) { return error.name }")
    assert refused == "TypeError"
    assert all("TrustedHTML" in line for line in browser.complaints())


def test_one_task_is_read_whole_and_its_workflow_followed(app: LiteTQ, add: Any, browser: Browser, site: str) -> None:
    @app.task(name="boom", bind=True, max_retries=1, default_retry_delay=0)
    def boom(self: Any, value: int) -> None:
        raise self.retry(exc=ValueError("the kettle is empty"))

    with app.run_embedded(concurrency=1):
        result = chain(add.s(1, 2), boom.s())()
        with pytest.raises(ValueError):
            result.get(timeout=LONG)
    browser.go(f"{site}task/{result.id}")  # as Flower's address
    eventually(lambda: len(browser.texts(".tree .line")) == 2)
    assert browser.texts("#task h1")[0].split("\n")[0].startswith("boom") and browser.texts("h1 .badge") == ["FAILURE"]
    text = "\n".join(browser.texts("main"))
    for part in ("ValueError('the kettle is empty')", "Traceback (most recent call last)", "Earlier attempts", "RETRY"):
        assert part in text
    browser.click(".tree .line a")
    eventually(lambda: any(title.startswith("add") for title in browser.texts("#task h1")))
    assert "Result" in "\n".join(browser.texts("main h2"))
    browser.run("history.back()")
    eventually(lambda: any(title.startswith("boom") for title in browser.texts("#task h1")))
    browser.go(f"{site}task?id=unknown")
    (said,) = eventually(lambda: browser.texts("#complaint"))
    assert "No task unknown is known here" in said
    assert all("404" in line for line in browser.complaints())


def test_older_tasks_are_a_page_away_and_new_ones_move_nothing(
    app: LiteTQ, add: Any, browser: Browser, site: str
) -> None:
    app.engine.send(Plan(tuple(Message(f"id{n:03}", f"t{n}", b"[[], {}]") for n in range(120))))
    browser.go(f"{site}tasks")
    assert len(eventually(lambda: names(browser))) == 50 and browser.texts(".pager .where") == ["1 to 50"]
    browser.click(".pager button:last-child")
    eventually(lambda: browser.texts(".pager .where") == ["51 to 100"])
    second = names(browser)
    add.delay(1, 2)
    browser.click(".pager button:last-child")
    eventually(lambda: browser.texts(".pager .where") == ["101 to 120, these are all"])
    third = names(browser)
    browser.click(".pager button")
    eventually(lambda: names(browser) == second)
    browser.click(".pager button")
    eventually(lambda: names(browser)[:1] == ["add"])
    assert len({*names(browser)[1:], *second, *third}) == 119  # the new one has pushed one to the second page


def test_a_glance_shows_what_is_in_the_file_and_leads_on(app: LiteTQ, add: Any, browser: Browser, site: str) -> None:
    with app.run_embedded(concurrency=2, hostname="w@here", queues=["celery"]):
        add.delay(1, 2).get(timeout=LONG)
        add.apply_async((1, 2), countdown=3600)
        app.schedule.add("nightly", "add", "30 3 * * *")
        browser.go(site)
        eventually(lambda: browser.texts(".tile .value")[:5] == ["0", "0", "1", "0", "1"])
        eventually(lambda: any(row.startswith("w@here alive threads × 2") for row in rows(browser)))
        assert browser.texts("main h2") == ["Workers", "Queues", "Schedule"]
    browser.click("nav a[href=schedule]")
    (row,) = eventually(lambda: rows(browser))
    assert row.startswith("nightly add") and "30 3 * * *" in row and " in " in row
    browser.click("nav a[href=queues]")
    eventually(lambda: browser.texts("h1") == ["Queues"] and rows(browser))
    browser.click("main table a")
    assert len(eventually(lambda: names(browser))) == 2
    assert browser.run("return location.search") == "?queue=celery"


def test_a_page_whose_server_has_gone_says_so_and_comes_back(
    app: LiteTQ, db: Path, add: Any, browser: Browser, run_python: Any
) -> None:
    add.delay(1, 2)
    first = run_python("-m", "litetq", "monitor", db, "--port", "0")
    port = first.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0]
    browser.go(f"http://127.0.0.1:{port}/tasks")
    eventually(lambda: rows(browser))
    first.kill()
    first.wait()
    eventually(lambda: browser.texts("#pulse") == ["not connected"], within=LONG)
    assert len(rows(browser)) == 1  # what was known stays
    second = run_python("-m", "litetq", "monitor", db, "--port", port)
    assert port in second.stdout.readline()
    eventually(lambda: browser.texts("#pulse") == ["live"], within=LONG)
    browser.go("about:blank")


def test_nothing_is_asked_while_nobody_looks(app: LiteTQ, browser: Browser, site: str) -> None:
    browser.go(f"{site}tasks")
    eventually(lambda: browser.texts("#pulse") == ["live"])
    browser.run(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    assert browser.texts("#pulse") == ["paused"]
    browser.run(
        "Object.defineProperty(document, 'hidden', {value: false}); document.dispatchEvent(new Event('visibilitychange'))"
    )
    eventually(lambda: browser.texts("#pulse") == ["live"])
