"""The vocabulary: what a DAG, a run, a task instance and an attempt are, and which steps they may take.

Pure: no SQL, no clock, no randomness, no await (import-linter checks it).
"""
