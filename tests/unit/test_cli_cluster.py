"""The line of `litetq multi`: nodes, options for some of them, and the command that starts each."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

import click
import pytest

from litetq.cli import cluster
from litetq.cli.cluster import Node

HOST = socket.gethostname()


def nodes(line: str) -> list[Node]:
    """Return the nodes; what is noted is an error."""
    return cluster.nodes(cluster.read(shlex.split(line)), note=pytest.fail)


def names(line: str) -> list[str]:
    return [node.name for node in nodes(line)]


def words(line: str) -> dict[str, str]:
    """Return, by short name, what a line gives to each worker beside its name and files."""
    found = {}
    for node in nodes(line):
        assert node.words[:2] == ("-m", "litetq")
        end = node.words.index("-n")
        own = ("-n", node.name, f"--pidfile={node.short_name}.pid", f"--logfile={node.short_name}%I.log")
        assert node.words[end : end + 5] == (*own, f"--executable={sys.executable}")
        found[node.short_name] = " ".join([*node.words[2:end], *node.words[end + 5 :]])
    return found


def refused(line: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        nodes(line)
    return caught.value.message


@pytest.mark.row("13.multi")
def test_a_number_counts_nodes_and_words_name_them() -> None:
    assert names("3") == [f"celery{number}@{HOST}" for number in (1, 2, 3)]
    assert names("2 --range-prefix=w --hostname=desk.org") == ["w1@desk.org", "w2@desk.org"]
    assert names("2 -n desk.org") == names("2 --suffix desk.org") == ["celery1@desk.org", "celery2@desk.org"]
    assert names("mail video@x.org foo@%h --prefix=my-") == [f"my-mail@{HOST}", "video@x.org", f"foo@{HOST}"]
    assert names("2 3") == [f"2@{HOST}", f"3@{HOST}"]
    assert names("w1-3") == [f"w1-3@{HOST}"]
    assert "Which nodes?" in refused("-A tasks")
    assert "0 nodes are none" in refused("0")


@pytest.mark.row("13.multi")
def test_options_are_for_all_or_for_the_nodes_that_they_name() -> None:
    """The lines stand in Celery's manual; so does what comes of them."""
    assert words("3 -c 3 -c:1 10") == {
        "celery1": "worker --detach -c 10",
        "celery2": "worker --detach -c 3",
        "celery3": "worker --detach -c 3",
    }
    assert list(words("image video data -c 3 -c:image 10").values()) == [
        "worker --detach -c 10", "worker --detach -c 3", "worker --detach -c 3",
    ]  # fmt: skip
    for whose in ("1-3", "1,2,3", "1-2,3", f"celery1,celery2,celery3@{HOST}"):
        many = words(f"5 -c 3 -c:{whose} 10")
        assert [many[f"celery{n}"][-2:] for n in range(1, 6)] == ["10", "10", "10", " 3", " 3"], whose
    some = words("10 -A tasks -l INFO -Q:1-3 images,video -Q:4,5 data -Q default -l:4,5 DEBUG")
    assert some["celery3"] == "-A tasks worker --detach -l INFO -Q images,video"
    assert some["celery5"] == "-A tasks worker --detach -l DEBUG -Q data"
    assert some["celery6"] == "-A tasks worker --detach -l INFO -Q default"
    assert words("2 --time-limit=9 --time-limit:2=5")["celery2"] == "worker --detach --time-limit=5"
    assert words("a b -c:2 7")["b"] == "worker --detach -c 7"
    assert set(words("2 -c:1-5 7").values()) == {"worker --detach -c 7"}, "more than there are may be meant"
    assert "-c:3: there is no node 3" in refused("a b -c:3 7")


def test_what_is_said_of_a_node_that_the_line_does_not_name_is_noted() -> None:
    """The same options may be used for some of the nodes only, so it is no error."""
    said: list[str] = []
    found = cluster.nodes(cluster.read(["image", "-c:image", "2", "-c:vdieo", "3"]), said.append)
    assert said == ["note: -c:vdieo is for no node of this line (image)"]
    assert found[0].words[4:6] == ("-c", "2")


@pytest.mark.row("13.multi")
def test_a_worker_gets_its_options_however_they_are_written() -> None:
    line = "-E w1 -c4 --concurrency 5 -P threads --loglevel=info -B -A proj:app jobs.sqlite -q -D -- more 'of it'"
    assert words(line)["w1"] == (
        "-A proj:app -q worker --detach -E -c 4 --concurrency=5 -P threads --loglevel=info -B jobs.sqlite -- more of it"
    )
    assert words("w1 --of-the-app value --flag-of-it -X mail")["w1"] == (
        "worker --detach --of-the-app=value --flag-of-it -X mail"
    )
    assert words("w1 --append='-c 3'")["w1"] == "worker --detach -c 3"
    assert nodes("w1 --cmd='-m celery worker' -A x")[0].words[:5] == ("-m", "celery", "-A", "x", "worker")
    assert nodes("w1 --executable=/usr/bin/python3")[0].executable == "/usr/bin/python3"
    assert "-c wants a value" in refused("w1 -c")
    assert "Both './a' and 'b.sqlite' look like a file" in refused("w1 ./a b.sqlite")


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
@pytest.mark.row("13.multi")
def test_files_are_filled_in_by_the_node_and_lie_in_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [node] = nodes("w1@a.b")
    assert (node.pid_path, node.log_path) == (tmp_path / "w1.pid", tmp_path / "w1.log")
    [node] = nodes("w1@a.b --pidfile=/run/%N-%d.pid -f log/%h%I.log --workdir=/srv -c '%n %%n %i'")
    assert (node.pid_path, node.log_path) == (Path("/run/w1-a.b.pid"), Path("/srv/log/w1@a.b.log"))
    assert "--logfile=log/w1@a.b%I.log" in node.words and "w1 %%n %i" in node.words
    assert node.shown.startswith(f"{sys.executable} -m litetq --workdir=/srv worker --detach -c 'w1 %%n %i' -n w1@a.b ")
    monkeypatch.setenv("HOME", "/home/me")
    [node] = nodes("w1 --workdir=~/x --pidfile=~/%n.pid")
    assert node.pid_path == Path("/home/me/w1.pid") and "--workdir=/home/me/x" in node.words
    assert list(tmp_path.iterdir()) == []
