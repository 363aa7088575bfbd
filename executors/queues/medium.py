"""What an executor needs of a broker: publish, and say what is there.  Everything here blocks; the courier calls it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from executors.queues.address import Address


#: Why a parcel was not published that nothing else was wrong with.
LATE: Final = "there was no time left to publish it"


class Away(Exception):
    """The broker cannot be used at the moment; says why, without a password."""


class Parcel(NamedTuple):
    """An attempt on its way to the broker."""

    attempt_id: str
    #: As a task calls it, without the prefix.
    queue: str
    priority: int
    ticket: str

    def __repr__(self) -> str:
        return f"<Parcel {self.attempt_id} for {self.queue}>"


class Where(Enum):
    """What a broker says of a message."""

    THERE = "there"
    NOT_THERE = "not there"
    #: It cannot tell.
    UNSURE = "unsure"


class Medium(Protocol):
    """A broker as the scheduler's side sees it; used by one thread."""

    address: Address

    def probe(self) -> None:
        """Return if the broker can be used; raise Away otherwise.  Called every few seconds."""
        ...

    def publish(self, parcels: Sequence[Parcel], has_time: Callable[[], bool]) -> Mapping[str, str]:
        """Publish each parcel, as long as there *has_time*; return by attempt why one of them was not.

        Publishing again what is there already does no harm.  Raise Away where none of what is left can be published.
        """
        ...

    def locate(self, attempt_ids: Sequence[str]) -> Mapping[str, Where]:
        """Say of each attempt whether its message is there; raise Away."""
        ...

    def forget(self, attempt_ids: Sequence[str]) -> None:
        """Take out messages that nobody has taken yet, if that is cheap; raise Away."""
        ...

    def close(self) -> None:
        """Let go of everything; never raises."""
        ...
