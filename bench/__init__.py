"""Benchmarks: each figure by one command, with the machine's own rates of the same run beside it.

Never part of the tests: a figure depends on the machine and on what else it does.
"""
