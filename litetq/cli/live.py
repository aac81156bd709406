"""The live screen of `litetq events`: what happens to tasks and workers, and keys to look closer and to give orders.

`Screen` draws frames from a picture (`events.State`) and obeys keys; it knows neither terminal nor thread, so a frame is a
list of lines and a key a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from litetq import __version__, states
from litetq.cli.text import Paper, columns, counted, cut, visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.events import SeenTask, State

_KEYS: Final = "j:down k:up i:info t:traceback r:result c:revoke l:rate limit e:events on q:quit"
_STYLES: Final = {states.STARTED: "RUNNING", states.RECEIVED: "dim"}
_FOOT: Final = 6  # lines below the table
_STATE, _TIME, _ID = 8, 8, 36  # columns
_INVERSE, _BOLD, _PLAIN = "\x1b[7m", "\x1b[1m", "\x1b[0m"


class Screen:
    """What is seen: the table, or a page over it.

    Args:
        done: says why the picture no longer changes, once it does not; None before.
    """

    def __init__(self, app: LiteTQ, state: State, paper: Paper, done: Callable[[], str | None] = lambda: None) -> None:
        self.app = app
        self.state = state
        self.is_over = False
        self.beep = False
        self._paper = paper
        self._done = done
        self._selected: str | None = None
        self._page: _Page | None = None
        self._question: _Question | None = None
        self._rows = 1  # lines of the table in the last frame

    # -- keys

    def press(self, key: str) -> None:
        """Obey a key."""
        if key == "interrupt":
            self.is_over = True
        elif self._question is not None:
            if not self._question.press(key):
                self._question = None
        elif self._page is not None:
            if not self._page.press(key):
                self._page = None
        else:
            self._press_in_table(key)

    def _press_in_table(self, key: str) -> None:
        steps = {"down": 1, "j": 1, "up": -1, "k": -1, "page down": self._rows, "page up": -self._rows}
        steps |= {"home": -len(self.state.tasks), "end": len(self.state.tasks)}
        if key.lower() in ("q", "escape"):
            self.is_over = True
        elif key.lower() in steps:
            self._move(steps[key.lower()])
        elif key.lower() == "e":
            self._say_replies(self.app.control.enable_events(reply=True))
        elif key.lower() in _FOR_TASK:
            task = self.state.tasks.get(self._selected or "")
            if task is None:
                self.beep = True
            else:
                _FOR_TASK[key.lower()](self, task)

    def _move(self, step: int) -> None:
        ids = [id for id, _ in self.state.tasks_by_time()]
        if not ids:
            self.beep = True
        elif self._selected not in ids:
            self._selected = ids[0]
        else:
            self._selected = ids[min(max(0, ids.index(self._selected) + step), len(ids) - 1)]

    def _info(self, task: SeenTask) -> None:
        facts = task.info(extra=["state", "worker", "timestamp"])
        if task.worker is not None:
            facts["worker"] = task.worker.hostname
        if task.timestamp is not None:
            facts["timestamp"] = datetime.fromtimestamp(task.timestamp).isoformat(" ", "milliseconds")
        self._page = _Page(
            f"Task details for {task.uuid}", [f"name: {task.name}", *(f"{k}: {v}" for k, v in facts.items())]
        )

    def _traceback(self, task: SeenTask) -> None:
        text = getattr(task, "traceback", None) or self.app.AsyncResult(str(task.uuid)).traceback
        if not text:
            self.beep = True
            return
        self._page = _Page(f"Task Exception Traceback for {task.uuid}", str(text).rstrip("\n").split("\n"))

    def _result(self, task: SeenTask) -> None:
        told = getattr(task, "result", None) or getattr(task, "exception", None)
        if told is None:
            result = self.app.AsyncResult(str(task.uuid))
            told = repr(result.result) if result.ready() else "none yet"
        self._page = _Page(f"Task Result for {task.uuid}", str(told).split("\n"))

    def _revoke(self, task: SeenTask) -> None:
        def revoke(answer: str) -> None:
            if answer.strip().lower() in ("y", "yes"):
                self._say_replies(self.app.control.revoke(str(task.uuid), reply=True))

        self._question = _Question(f"Revoke {task.name}[{task.uuid}]? [y/N] ", revoke)

    def _rate_limit(self, task: SeenTask) -> None:
        if not task.name:
            self.beep = True
            return

        def limit(answer: str) -> None:
            if answer.strip():
                self._say_replies(self._limited(str(task.name), answer.strip()))

        self._question = _Question(f"New rate limit of {task.name}, like 10/m: ", limit)

    def _limited(self, name: str, rate: str) -> list[dict[str, Any]]:
        """Set a rate limit, in the file alone where no worker answers, and return the answers."""
        replies: list[dict[str, Any]] = self.app.control.rate_limit(name, rate, reply=True) or []
        if not replies:
            try:
                self.app.engine.set_rate_limit(name, rate)
            except ValueError as error:
                return [{"file": {"error": str(error)}}]
            return [{"file": {"ok": "new rate limit set; workers that start obey it"}}]
        return replies

    def _say_replies(self, replies: Sequence[dict[str, Any]] | None) -> None:
        lines = [f"{node}: {_told(reply)}" for each in replies or () for node, reply in each.items()]
        self._page = _Page("Remote Control Command Replies", lines or ["No replies received in 1s deadline."])

    # -- frames

    def frame(self, width: int, height: int) -> list[str]:
        """Return the lines of a screen of this size."""
        if self._page is not None:
            return self._page.frame(width, height)
        self._rows = max(1, height - _FOOT - 2)
        workers = [worker for worker in list(self.state.workers.values()) if worker.alive]
        lines = [
            _shown(f"litetq events {__version__} - {self.app.broker_address.path or ''}", width),
            self._bold(_shown(_row(("UUID", "WORKER", "TASK", "TIME", "STATE"), width), width)),
            *self._table(width),
        ]
        lines += [""] * (height - _FOOT - len(lines))
        online = f"Workers online: {', '.join(sorted(str(each.hostname) for each in workers))}"
        info = f"events: {self.state.event_count:,} tasks: {self.state.task_count:,} "
        lines += [
            "-" * width,
            _shown(self._of_selected(), width),
            _shown(online if workers else "No workers discovered. Do they run with -E?", width),
            _shown(f"Info: {info}workers: {len(workers)}/{len(self.state.workers)}", width),
            _shown(self._question.text if self._question is not None else self._done() or "", width),
            _shown(f"Keys: {_KEYS}", width),
        ]
        return lines[:height]

    def _table(self, width: int) -> list[str]:
        tasks = list(self.state.tasks_by_time())
        place = next((n for n, (id, _) in enumerate(tasks) if id == self._selected), 0)
        first = max(0, place - self._rows + 1)
        return [self._task(task, width) for _, task in tasks[first : first + self._rows]]

    def _task(self, task: SeenTask, width: int) -> str:
        at = "" if task.timestamp is None else datetime.fromtimestamp(task.timestamp).strftime("%H:%M:%S")
        node = task.client if task.worker is None else task.worker.hostname
        line = _row((str(task.uuid), str(node or "*NONE*"), str(task.name or "?"), at, task.state), width)
        if task.uuid == self._selected:
            return f"{_INVERSE}{line}{_PLAIN}"
        if not self._paper.colour or len(line) < _STATE:
            return line
        return line[:-_STATE] + self._paper.paint(line[-_STATE:], _STYLES.get(task.state, task.state))

    def _of_selected(self) -> str:
        task = self.state.tasks.get(self._selected or "")
        if task is None:
            return "No task selected"
        return "Selected: " + " ".join(f"{name}={value}" for name, value in task.info().items())

    def _bold(self, text: str) -> str:
        return f"{_BOLD}{text}{_PLAIN}"


_FOR_TASK: Final[dict[str, Callable[[Screen, SeenTask], None]]] = {
    "i": Screen._info,
    "enter": Screen._info,
    "t": Screen._traceback,
    "r": Screen._result,
    "c": Screen._revoke,
    "x": Screen._revoke,
    "l": Screen._rate_limit,
}


class _Page:
    """A text over the table, which scrolls; any other key ends it."""

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        self._title = title
        self._lines = [visible(line) for line in lines]
        self._first = 0
        self._seen, self._most = 1, 0

    def press(self, key: str) -> bool:
        """Scroll, and return True; False: the page is to be left."""
        step = {"down": 1, "j": 1, "up": -1, "k": -1, "page down": self._seen, " ": self._seen, "page up": -self._seen}
        if key not in step:
            return False
        self._first = min(max(0, self._first + step[key]), self._most)
        return True

    def frame(self, width: int, height: int) -> list[str]:
        wrapped = [part for line in self._lines for part in _wrapped(line, width - 4)]
        self._seen = max(1, height - 4)
        self._most = max(0, len(wrapped) - self._seen)
        self._first = min(self._first, self._most)
        body = [f"  {line}" for line in wrapped[self._first : self._first + self._seen]]
        rest = len(wrapped) - self._first - len(body)
        more = f" ({counted(rest, 'line')} below: j)" if rest else ""
        return [
            f"{_BOLD}{_shown(self._title, width)}{_PLAIN}",
            "",
            *body,
            *[""] * (self._seen - len(body)),
            "",
            _shown(f"Press any key to continue...{more}", width),
        ]


class _Question:
    """A line that is typed at the foot of the table."""

    def __init__(self, text: str, then: Callable[[str], None]) -> None:
        self._text = text
        self._typed = ""
        self._then = then

    @property
    def text(self) -> str:
        return f"{self._text}{self._typed}_"

    def press(self, key: str) -> bool:
        """Take a key, and return whether the line goes on."""
        if key == "enter":
            self._then(self._typed)
            return False
        if key == "escape":
            return False
        if key == "delete":
            self._typed = self._typed[:-1]
        elif len(key) == 1 and key.isprintable():
            self._typed += key
        return True


def _row(cells: tuple[str, str, str, str, str], width: int) -> str:
    """Return a line of the table: the id as wide as there is room, worker and task share the rest."""
    id, worker, name, at, state = map(visible, cells)
    free = width - _STATE - _TIME - 4
    for_id = min(_ID, max(8, free - 32))
    for_name = max(4, (free - for_id) // 2)
    widths = (for_id, max(4, free - for_id - for_name), for_name, _TIME)
    told = [_cell(text, size) for text, size in zip((id, worker, name, at), widths, strict=True)]
    return cut(" ".join([*told, _cell(state, _STATE)]), width)


def _wrapped(text: str, width: int) -> list[str]:
    """Return the text as lines of at most so many columns, those after the first indented."""
    lines, line, taken = [], "", 0
    for letter in text:
        size = columns(letter)
        if taken + size > width:
            lines.append(line)
            line, taken = "    ", 4
        line += letter
        taken += size
    return [*lines, line]


def _cell(text: str, width: int) -> str:
    text = cut(text, width)
    return text + " " * (width - columns(text))


def _shown(text: str, width: int) -> str:
    return cut(visible(text), width)


def _told(reply: Any) -> str:
    if isinstance(reply, dict):
        return str(reply["ok"]) if "ok" in reply else f"error: {reply.get('error')}"
    return str(reply)
