"""Rows of the fault table on the way from a folder to a checkpoint; `benchmarks/faults.py` runs them."""
