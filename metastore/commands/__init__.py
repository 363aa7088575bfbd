"""What can be done to the metastore: plain functions, one transaction each, every UPDATE a compare-and-set."""
