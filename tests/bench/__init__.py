"""`make bench`: Kubelore side by side with what somebody would use instead, in one run on one machine.

`python -m tests.bench --help` lists the benchmarks; docs/benchmarks.md holds the figures and explains them.
"""
