"""Figures of litetq beside its peers, with their conditions and their spread: `python -m benchmarks --help`.

A figure is never a pass or a fail: machines differ and other programs run. What is promised is a ratio to a target of the
design, or to a peer measured in the same run.
"""
