"""Publishing to Redis, for Dramatiq's workers."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import redis

from executors.queues.delivery import pack
from executors.queues.medium import LATE, Away, Where
from executors.queues.message import queue_name
from executors.queues.redis_broker import Keys
from executors.queues.redis_client import make_client
from executors.queues.redis_errors import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from executors.queues.address import Address
    from executors.queues.medium import Parcel

#: How many messages one script takes: Redis does nothing else meanwhile.
_BATCH: Final = 200


class RedisMedium:
    """A Redis that is used as one mailbox."""

    def __init__(self, address: Address, prefix: str) -> None:
        self.address = address
        self._prefix = prefix
        self._client = make_client(address)
        self._keys = Keys(self._client, prefix)

    def probe(self) -> None:
        """Write something: one that answers may be full, a replica, or not for this user."""
        with self._in_words():
            self._keys.publish(queue_name(self._prefix, "default"), [])

    def publish(self, parcels: Sequence[Parcel], has_time: Callable[[], bool]) -> Mapping[str, str]:
        by_queue: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            by_queue.setdefault(parcel.queue, []).append(parcel)
        late: dict[str, str] = {}
        for queue, batch in by_queue.items():
            name = queue_name(self._prefix, queue)
            for i in range(0, len(batch), _BATCH):
                part = batch[i : i + _BATCH]
                if not has_time():
                    late |= dict.fromkeys((one.attempt_id for one in part), LATE)
                    continue
                with self._in_words():
                    self._keys.publish(name, [(one.attempt_id, pack(name, one.attempt_id, one.ticket)) for one in part])
        return late

    def locate(self, attempt_ids: Sequence[str]) -> Mapping[str, Where]:
        """Say what Redis has: in one place everything is known at once, and so GONE is a proof."""
        with self._in_words():
            self._keys.rescue()  # what a dead worker holds is nowhere
            found = self._keys.locate(attempt_ids)
        return {each: Where.THERE if each in found else Where.NOT_THERE for each in attempt_ids}

    def forget(self, attempt_ids: Sequence[str]) -> None:
        with self._in_words():
            self._keys.forget(attempt_ids)

    def close(self) -> None:
        with suppress(redis.RedisError):
            self._client.close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise Away(self.address.scrub(explain(error))) from None
