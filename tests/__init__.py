"""Tests of litetq. A package, so that `from tests.waiting import eventually` never finds another project's `tests`."""
