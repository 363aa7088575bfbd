"""The metastore on both databases."""
