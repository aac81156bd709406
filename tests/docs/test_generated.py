"""The pages that are made from code are up to date, and what they say of a setting is so."""

from __future__ import annotations

import docs.generate as generate
from litetq import conf


def test_the_generated_pages_are_up_to_date() -> None:
    stale = generate.differing(generate.pages())
    assert not stale, f"docs/{stale[0]} is not what the code says: run `python -m docs.generate` and commit the result"


def test_every_setting_and_every_command_has_its_line() -> None:
    pages = generate.pages()
    assert all(f"| `{key}` |" in pages["settings.md"] for key in conf.OPTIONS)
    assert all(f"## litetq {name}\n" in pages["cli.md"] for name in generate.commands._MODULES)


def test_a_setting_that_nothing_reads_is_not_called_working() -> None:
    assert generate.standing_of("task_serializer", conf.OPTIONS["task_serializer"])[0] == generate.WORKS
    unread = conf.Option(None, "any", "made up for this test")
    assert generate.standing_of("no_room_reads_this", unread)[0] == generate.LATER
