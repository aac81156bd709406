"""The blog of examples/django: web server, worker and beat as processes, real requests."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.django.conftest import WITHIN, Browser, Project
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MODELS = "from blog.models import Comment, Post\n"
POST = MODELS + "print(Post.objects.create(slug='first', title='First').pk)"


def comment(text: str, name: str = "Ann") -> dict[str, str]:
    return {"name": name, "email_address": "a@example.org", "comment": text}


def test_a_comment_is_shown_once_the_filter_has_let_it_pass_and_spam_is_not(
    blog: Project, serve: Callable[[Project], Browser]
) -> None:
    blog.python(POST)
    browser = serve(blog)
    page = browser.post("/first/comment/", comment("Well said"), seen_at="/first/")
    browser.post("/first/comment/", comment("Win money in our casino"), seen_at="/first/")
    assert "First</h1>" in page and "Well said" not in page, "nobody has looked at it yet"

    blog.start("-m", "litetq", "-A", "proj", "worker", "-l", "INFO")
    eventually(lambda: "Well said" in browser.get("/first/"), WITHIN)
    judged = MODELS + "print(Comment.objects.filter(is_spam__isnull=False).count())"
    eventually(lambda: blog.python(judged) == 2, WITHIN)
    assert "casino" not in browser.get("/first/")
    kept = blog.python(
        "from django_celery_results.models import TaskResult\n"
        "print(json.dumps(sorted(TaskResult.objects.values_list('task_name', 'status', 'result'))))"
    )
    assert kept == [["blog.tasks.spam_filter", "SUCCESS", "false"], ["blog.tasks.spam_filter", "SUCCESS", "true"]]
    assert "Running spam filter for comment 1" in blog.said()


@pytest.mark.slow
def test_a_wrong_form_is_shown_again_and_sends_nothing(blog: Project, serve: Callable[[Project], Browser]) -> None:
    blog.python(POST)
    page = serve(blog).post("/first/comment/", comment(""), seen_at="/first/")
    assert "This field is required" in page
    assert blog.python("from proj import celery_app as app\nprint(app.control.purge())") == 0


@pytest.mark.slow
def test_a_periodic_task_added_in_the_admin_runs_within_seconds_and_its_result_stands_there(
    blog: Project, serve: Callable[[Project], Browser]
) -> None:
    blog.python(
        "from django.contrib.auth.models import User; User.objects.create_superuser('ann', password='secret')\n"
        "from django_celery_beat.models import IntervalSchedule\n"
        "every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)\n"
        "print(every.pk)"
    )
    blog.start("-m", "litetq", "-A", "proj", "worker", "-B", "-l", "INFO", "-P", "threads")
    browser = serve(blog)
    eventually(lambda: "beat: Starting" in blog.said(), WITHIN)
    assert "Periodic tasks" in browser.post("/admin/login/?next=/admin/", {"username": "ann", "password": "secret"})

    add = "/admin/django_celery_beat/periodictask/add/"
    assert '<option value="blog.tasks.say">' in browser.get(add), "the admin offers the registered tasks"
    form = {
        "name": "say welcome", "regtask": "blog.tasks.say", "task": "", "enabled": "on", "interval": "1",
        "args": '["Hello"]', "kwargs": "{}", "headers": "{}", "start_time_0": "", "start_time_1": "",
    }  # fmt: skip
    page = browser.post(add, form)
    assert "was added successfully" in re.sub(r"\s+", " ", page), page
    results = "/admin/django_celery_results/taskresult/"
    eventually(lambda: "say welcome" in browser.get(results), WITHIN)
    page = browser.get(results)
    assert "blog.tasks.say" in page and "SUCCESS" in page

    change = blog.python(
        "from django_celery_beat.models import PeriodicTask\nprint(PeriodicTask.objects.get(name='say welcome').pk)"
    )
    form.pop("enabled")
    browser.post(f"/admin/django_celery_beat/periodictask/{change}/change/", form)
    changes = "DatabaseScheduler: Schedule changed"
    eventually(lambda: blog.said().count(changes) >= 2, WITHIN)
    assert (
        blog.python(
            "from django_celery_results.models import TaskResult\n"
            "print(json.dumps(TaskResult.objects.filter(periodic_task_name='say welcome').first().result))"
        )
        == '"Hello, and welcome"'
    )
