"""The app itself: `litetq.app`."""

from __future__ import annotations

from litetq import app, conf
from litetq.compat.mirror import mirror

Celery = app.LiteTQ
PendingConfiguration = conf.Settings  # read at the first look at a setting, as all settings here

mirror(__name__, app)
