"""What can be asked of the metastore: plain functions, connection first, that change nothing."""
