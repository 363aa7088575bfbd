"""The metastore: the only package that knows SQL, on SQLite and on Postgres alike."""
