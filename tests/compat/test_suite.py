"""The list of Celery's tests that are run is sound: each part must pass something, and nothing is left out without a reason."""

from __future__ import annotations

import pytest

from tests.compat import suite

PARTS = suite.read_list(suite.LIST.read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_names_files_counts_and_reasons(part: suite.Part) -> None:
    assert part.files and part.passes > 0
    assert all(len(reason) > 10 for reason in part.left_out.values())
    assert all(pattern.count("::") in (1, 2) or "[" in pattern for pattern in part.left_out)


def test_a_test_left_out_without_a_reason_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        suite.read_list("part some passes 1\nt/test_x.py\n- test_x::test_y\n")
    assert ended.value.code == 2 and "gives no reason" in capsys.readouterr().err


def test_a_part_that_there_is_not_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        suite.main(["nosuch"])
    assert ended.value.code == 2 and "'nosuch'; the parts are tasks, canvas" in capsys.readouterr().err
