"""The tables of the metastore, one noun a file, all on one :data:`metastore.models.base.metadata`."""
