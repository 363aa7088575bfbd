"""The routes, one noun a file; each has its twin in :mod:`api.schemas`."""
