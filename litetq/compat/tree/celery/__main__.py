"""`python -m celery` is `litetq`."""

from __future__ import annotations

import sys

from litetq.cli import main

if __name__ == "__main__":
    sys.exit(main())
