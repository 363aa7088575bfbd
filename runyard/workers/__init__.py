"""Processes that take attempts from a broker: the modules for ``dramatiq`` and ``celery``, and what they share."""
