"""How a lease is renewed: it never ends before what its holder was told before.

A holder goes by the latest promise that it has heard.  A renewal may promise less: the lease was set to less, or its
transaction stood still while another API's overtook it.  If its answer is lost, the holder goes on until the end of
the promise before it, so until then nobody else may have what it holds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, update

from metastore.models.agents import agents
from metastore.models.base import Instant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from metastore.store import Tx

#: A lease that ends later by more than this is none that was promised: the database's clock was wrong, and was set.
_BELIEVED: Final = timedelta(minutes=5)

_UNTIL: Final = bindparam("until", type_=Instant)
#: What ``lease_until`` becomes in an UPDATE with :func:`renewed` among its values.
RENEWED: Final = case(
    (
        and_(agents.c.lease_until > _UNTIL, agents.c.lease_until < bindparam("believed", type_=Instant)),
        agents.c.lease_until,
    ),
    else_=_UNTIL,
)


def renewed(tx: Tx, lease: timedelta) -> dict[str, Any]:
    """Return the values of an UPDATE that renews a lease."""
    until = tx.now + lease
    return {"now": tx.now, "until": until, "believed": until + _BELIEVED}


def not_before(known: datetime | None, until: datetime) -> datetime:
    """Return what a lease that is known to end at *known* becomes when it is renewed until *until*."""
    return known if known is not None and until < known < until + _BELIEVED else until


def shorten(tx: Tx, agent_ids: Sequence[str], lease: timedelta) -> None:
    """End the promises beyond *lease* that were made to agents which are known to have heard of less.

    The service cannot know that, and never does this; the conformance kit watches its workers.
    """
    until = tx.now + lease
    theirs = and_(agents.c.agent_id.in_(agent_ids), agents.c.lease_until > until)
    tx.conn.execute(update(agents).where(theirs).values(lease_until=until))
