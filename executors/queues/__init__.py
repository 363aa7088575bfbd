"""Executors that hand attempts to workers through a broker: ``dramatiq`` and ``celery``, on Redis or RabbitMQ.

The database is the queue and the lease; a broker is a mailbox of offers for what can start now.  A message may be lost,
late or doubled, and costs latency at most: the attempt's start is a compare-and-set in the database.
"""
