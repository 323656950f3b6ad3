"""The bench: managedd and `prefect server start` + `prefect worker start`, side by side, on one machine, in one run.

`make bench` runs it; docs/performance.md says how to read it. It is no test: it passes or fails nothing on absolute time.
"""
