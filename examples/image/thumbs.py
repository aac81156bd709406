"""Make thumbnails of a folder of pictures, in child processes started by this program, with progress for each.

    python thumbs.py PHOTOS THUMBS --size 128

A film is a folder of pictures too:  ffmpeg -i film.mp4 -vf fps=1/10 frames/%05d.ppm
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tasks import app, thumbnail


def main() -> int:
    parser = argparse.ArgumentParser(description="Make thumbnails of the .ppm and .png files of a folder.")
    parser.add_argument("photos", type=Path)
    parser.add_argument("thumbs", type=Path)
    parser.add_argument("--size", type=int, default=128, help="pixels of the longer side")
    said = parser.parse_args()
    if said.size < 1:
        parser.error("--size must be at least 1")

    said.thumbs.mkdir(parents=True, exist_ok=True)
    sources = [path for path in sorted(said.photos.iterdir()) if path.suffix.lower() in (".ppm", ".png")]
    targets = {path: said.thumbs / f"{path.name}.thumb.png" for path in sources}
    results = {
        path: thumbnail.delay(str(path.resolve()), str(target.resolve()), said.size) for path, target in targets.items()
    }
    failed = 0
    with app.run_embedded(pool="processes"):
        for path, result in results.items():

            def show(told: dict[str, Any], name: str = path.name) -> None:
                if told["status"] == "SHRINKING":
                    print(f"{name}: {told['result']['percent']} %", end="\r", file=sys.stderr)

            made = result.get(on_message=show, propagate=False)
            if result.failed():
                failed += 1
                print(f"{path.name}: {made}")
            else:
                print(f"{path.name}: {made['width']} x {made['height']}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
