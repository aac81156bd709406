"""The whole of it: an app, the file it queues in, and a task."""

from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")


@app.task
def add(x: int, y: int) -> int:
    return x + y
