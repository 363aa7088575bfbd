"""Walks over a graph that is given as ``{node: its upstream nodes}``: cycles, stages, ancestors.

Everything is iterative and O(V + E): a chain of 10,000 tasks must not meet Python's recursion limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Upstream = Mapping[str, Sequence[str]]


def stages(upstream: Upstream) -> list[list[str]]:
    """Return the nodes stage by stage, each sorted: a node is one stage after the last of its upstreams.

    Nodes in a cycle, and what is behind them, are left out; upstreams that do not exist are ignored.
    """
    waits = dict.fromkeys(upstream, 0)
    downstream: dict[str, list[str]] = {node: [] for node in upstream}
    for node, before in upstream.items():
        for other in before:
            if other in downstream:
                downstream[other].append(node)
                waits[node] += 1
    ready = sorted(node for node, count in waits.items() if count == 0)
    found = []
    while ready:
        found.append(ready)
        behind = []
        for node in ready:
            for other in downstream[node]:
                waits[other] -= 1
                if waits[other] == 0:
                    behind.append(other)
        ready = sorted(behind)
    return found


def cycles(upstream: Upstream, limit: int = 20) -> list[list[str]]:
    """Return a shortest cycle through the smallest node of each tangle, at most *limit* of them.

    ``[a, b, c]`` is ``a -> b -> c -> a``: b depends on a.  A tangle is a strongly connected component: fixing what is
    returned may leave other cycles in the same tangle, never in another one.
    """
    left = set(upstream)
    for stage in stages(upstream):
        left.difference_update(stage)
    inner = {node: [other for other in upstream[node] if other in left] for node in upstream if node in left}
    found = [
        _round(min(tangle), inner, frozenset(tangle))
        for tangle in _tangles(inner)
        if len(tangle) > 1 or tangle[0] in inner[tangle[0]]
    ]
    return sorted(found)[:limit]


def _tangles(upstream: Upstream) -> list[list[str]]:
    """Return the strongly connected components: Tarjan's algorithm, with a stack of its own."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    place: dict[str, int] = {}  # on the trail, and where
    trail: list[str] = []
    for root in upstream:
        ahead = [root] if root not in number else []
        work: list[tuple[str, Iterator[str]]] = []
        while ahead or work:
            if ahead:
                node = ahead.pop()
                number[node] = low[node] = len(number)
                place[node] = len(trail)
                trail.append(node)
                work.append((node, iter(upstream[node])))
            node, others = work[-1]
            for other in others:
                if other not in number:
                    ahead.append(other)
                    break
                if other in place:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    tangle = trail[place[node] :]
                    del trail[place[node] :]
                    for other in tangle:
                        del place[other]
                    found.append(tangle)
    return found


def _round(start: str, upstream: Upstream, tangle: Collection[str]) -> list[str]:
    """Return the shortest way from *start* down and back to it, by a breadth-first walk upwards."""
    behind: dict[str, str] = {}
    ring = [start]
    while start not in behind:
        ahead = []
        for node in ring:
            for other in upstream[node]:
                if other in tangle and other not in behind:
                    behind[other] = node
                    ahead.append(other)
        ring = ahead
    way, node = [start], behind[start]
    while node != start:
        way.append(node)
        node = behind[node]
    return way


def not_before(upstream: Upstream, wanted: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return each (node, other) of *wanted* where *other* is not an ancestor of *node*.

    Ancestors are bit sets over the nodes that are wanted at all: 10,000 tasks cost megabytes and milliseconds.  Of a
    graph with a cycle only what is before the cycle is judged.
    """
    bits = {other: 1 << no for no, other in enumerate(sorted({one for some in wanted.values() for one in some}))}
    before: dict[str, int] = {}
    for stage in stages(upstream):
        for node in stage:
            mask = 0
            for other in upstream[node]:
                if other in before:
                    mask |= before[other] | bits.get(other, 0)
            before[node] = mask
    return [
        (node, other)
        for node, some in wanted.items()
        if node in before
        for other in some
        if not before[node] & bits[other]
    ]
