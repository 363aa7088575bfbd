"""A metastore in memory: the commands and queries of the product, written a second time and as plainly as possible.

There are no counters to keep right, no row locks and no SQL: what can be derived is derived when it is asked for.
Differential tests hold it against the real commands on SQLite and on Postgres.
"""
