"""Whose attempt it is: what the key of an attempt opens, remembered for as long as it can be."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from api.credentials import equal
from dag.errors import BadCredential, Gone, NotFound
from metastore.queries.workers import attempt_of

if TYPE_CHECKING:
    from dag.world import Clock
    from metastore.queries.workers import AttemptRecord
    from metastore.store import Store

#: For so long after its end the log of an attempt may still arrive, whoever was said to have lost it.
LATE: Final = timedelta(hours=24)
#: A key never changes once the attempt has started; that it has ended meanwhile may be known this much later.
_BELIEVED: Final = 600.0
_REMEMBERED: Final = 10_000


class Attempts:
    """The keys of attempts that this process has met."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def started(self, attempt_id: str, key_hash: str) -> None:
        """Remember what the start of an attempt has settled: its end will come soon, and probably here."""
        self._keys[attempt_id] = (key_hash, self._clock.monotonic())
        self._keys.move_to_end(attempt_id)
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)

    async def authorise(self, attempt_id: str, shown_hash: str) -> None:
        """Refuse a key that does not open *attempt_id*, or does no longer."""
        known, at = self._keys.get(attempt_id, ("", 0.0))
        if equal(shown_hash, known) and self._clock.monotonic() - at < _BELIEVED:
            return
        record = check(await self._store.read(attempt_of, attempt_id), attempt_id, shown_hash)
        if record.ended_at is not None and self._clock.now() - record.ended_at > LATE:
            raise Gone("attempt_gone", f"The attempt {attempt_id} ended more than 24 hours ago; its log is closed.")
        self.started(attempt_id, shown_hash)


def check(found: AttemptRecord | None, attempt_id: str, shown_hash: str) -> AttemptRecord:
    """Return what was found of an attempt, if the key that was shown is its own."""
    if found is None:
        raise NotFound("attempt", attempt_id)
    if not equal(shown_hash, found.key_hash):
        raise BadCredential(f"This is not the key of the attempt {attempt_id}.")
    return found
