"""The tasks, apart from the web server, so that `litetq -A tasks worker` can run them, too."""

import hashlib
from pathlib import Path

from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")


@app.task(bind=True, acks_late=True)
def checksum(self, path):
    """Return the SHA-256 of a file, telling on the way how far it is."""
    size, done, digest = Path(path).stat().st_size, 0, hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done += len(piece)
            self.update_state(state="PROGRESS", meta={"done": done, "size": size})
    return digest.hexdigest()
