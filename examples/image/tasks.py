"""The task of thumbs.py: shrink one picture, and tell how far it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pictures import NotAPicture, png, read, shrink

from litetq import LiteTQ

app = LiteTQ("thumbs", broker="thumbs.sqlite")


# acks_late, reject_on_worker_lost: a killed process costs the picture under way a second start, and nothing else.
@app.task(bind=True, acks_late=True, reject_on_worker_lost=True, throws=(NotAPicture,))
def thumbnail(self: Any, source: str, target: str, longest: int) -> dict[str, int]:
    """Write a PNG of at most `longest` pixels a side; return its width and height."""
    picture = read(Path(source))
    small = shrink(picture, longest, lambda done: self.update_state(state="SHRINKING", meta={"percent": done}))
    part = Path(target + ".part")
    part.write_bytes(png(small))
    os.replace(part, target)  # a thumbnail is there whole or not at all
    return {"width": small.width, "height": small.height}
