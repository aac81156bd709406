"""Two machines share one broker: a network of its own for each, joined by a bridge, at which the servers listen.

Where networks cannot be made (no root, no `ip`), the two are processes with a home of their own each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import LOCAL, RabbitMQ, Redis, Server
from tests.waiting import eventually
from tests.wire.conftest import Programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Machines(NamedTuple):
    address: str  # where servers listen, which both reach
    within: dict[str, tuple[str, ...]]  # what is put before a command of each
    unplug: Callable[[str], None]
    plug: Callable[[str], None]
    are_apart: bool


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def can_make_networks(name: str) -> bool:
    """Return whether this user, on this machine, may make bridges and networks."""
    if shutil.which("ip") is None:
        return False
    tries = (
        ("link", "add", name, "type", "bridge"),
        ("link", "del", name),
        ("netns", "add", name),
        ("netns", "del", name),
    )
    return all(subprocess.run(["ip", *words], capture_output=True).returncode == 0 for words in tries)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    names = ("one", "two")
    homes = {name: tmp_path / f"home of {name}" for name in names}
    for home in homes.values():
        home.mkdir()
    own = {name: ("env", f"HOME={home}", f"TMPDIR={home}") for name, home in homes.items()}
    number = os.getpid() % 200 + 20
    bridge, net = f"ltq{os.getpid()}", f"10.77.{number}"
    made: list[Sequence[str]] = []
    if not can_make_networks(bridge):
        yield Machines(LOCAL, own, lambda name: None, lambda name: None, False)
        return
    try:
        ip("link", "add", bridge, "type", "bridge")
        made.append(("link", "del", bridge))
        ip("addr", "add", f"{net}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for place, name in enumerate(names, 2):
            ip("netns", "add", f"{bridge}-{name}")
            made.append(("netns", "del", f"{bridge}-{name}"))
            ip("link", "add", f"{bridge}{name[0]}", "type", "veth", "peer", "name", "eth0", "netns", f"{bridge}-{name}")
            ip("link", "set", f"{bridge}{name[0]}", "master", bridge, "up")
            ip("-n", f"{bridge}-{name}", "addr", "add", f"{net}.{place}/24", "dev", "eth0")
            ip("-n", f"{bridge}-{name}", "link", "set", "eth0", "up")
            ip("-n", f"{bridge}-{name}", "link", "set", "lo", "up")
        yield Machines(
            f"{net}.1",
            {name: ("ip", "netns", "exec", f"{bridge}-{name}", *words) for name, words in own.items()},
            lambda name: ip("link", "set", f"{bridge}{name[0]}", "down"),
            lambda name: ip("link", "set", f"{bridge}{name[0]}", "up"),
            True,
        )
    finally:
        for words in reversed(made):
            ip(*words)


SEND = """
import time
from litetq.exceptions import OperationalError
ids = []
while len(ids) < 400:
    try:
        ids.append(late.delay(len(ids)).id)
    except OperationalError:
        time.sleep(0.1)
answer(ids)
"""


RESTARTS = (50, 150, 250)  # when so many tasks have run


@pytest.mark.parametrize("kind", [RabbitMQ, Redis])
def test_two_machines_share_the_work_and_go_on_when_the_broker_is_restarted_three_times(
    machines: Machines, tmp_path: Path, kind: type[Server]
) -> None:
    broker = kind(tmp_path / "broker", address=machines.address)
    results = Redis(tmp_path / "results", address=machines.address)
    programs = Programs(broker.url, tmp_path, results.url)
    try:
        broker.start()
        results.start()
        workers = {
            name: programs.worker("litetq", "-P", "threads", node=name, within=within)
            for name, within in machines.within.items()
        }
        sender = programs.start(
            "litetq", "-c", f"from program import *\n{SEND}", within=machines.within["one"], stdout=subprocess.PIPE
        )
        for part in RESTARTS:
            eventually(lambda part=part: len(set(programs.noted())) >= part, within=90)
            broker.restart()
            done = {name: programs.log(name).count("succeeded") for name in workers}
            back = time.monotonic()
            for name, before in done.items():
                eventually(lambda name=name, before=before: programs.log(name).count("succeeded") > before, within=40)
            assert time.monotonic() - back < 40
        out, _ = sender.communicate(timeout=90)
        ids = json.loads(next(line for line in out.splitlines() if line.startswith("ANSWER ")).removeprefix("ANSWER "))
        eventually(lambda: len(set(programs.noted())) == 400 or programs.has_settled(), within=120)
        done = sorted({int(number) for number in programs.noted()})
        assert done == list(range(400))
        kept = [ids[number] for number in done]
        assert programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {kept}])") == done
        assert all(worker.poll() is None for worker in workers.values())
        assert programs.ask("litetq", "answer(sorted(app.control.inspect(timeout=5).ping()))") == [
            "one@here",
            "two@here",
        ]
    finally:
        programs.close()
        broker.close()
        results.close()


@pytest.mark.parametrize("kind", [RabbitMQ, Redis])
def test_a_machine_whose_cable_is_pulled_goes_on_when_it_is_back(
    machines: Machines, tmp_path: Path, kind: type[Server]
) -> None:
    if not machines.are_apart:
        pytest.skip("networks can be made by root only, with `ip`")
    broker = kind(tmp_path / "broker", address=machines.address)
    results = Redis(tmp_path / "results", address=machines.address)
    programs = Programs(broker.url, tmp_path, results.url)
    try:
        broker.start()
        results.start()
        for name, within in machines.within.items():
            programs.worker("litetq", "-P", "threads", node=name, within=within)
        assert programs.ask("litetq", "answer([end(late.delay(n)) for n in range(20)])") == list(range(20))
        machines.unplug("two")
        ids = programs.ask("litetq", "answer([late.delay(n).id for n in range(20, 60)])")
        eventually(lambda: len(set(programs.noted())) >= 50, within=40)  # what the other one was just given may wait
        machines.plug("two")
        assert programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])") == list(range(20, 60))
        before = programs.log("two").count("succeeded")
        programs.ask("litetq", "answer([late.delay(n).id for n in range(60, 100)])")
        eventually(lambda: programs.log("two").count("succeeded") > before, within=60)
        eventually(lambda: set(programs.noted()) == {str(number) for number in range(100)}, within=60)
    finally:
        programs.close()
        broker.close()
        results.close()
