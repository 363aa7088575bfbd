"""Walks over the graph, against a plain recursive opinion on small ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dag import graph

NODES = list("abcdefg")
graphs = st.dictionaries(
    st.sampled_from(NODES), st.lists(st.sampled_from([*NODES, "gone"]), max_size=4, unique=True), max_size=7
)


def ancestors(upstream: dict[str, list[str]], node: str) -> set[str]:
    """Everything that can be reached upwards."""
    found: set[str] = set()
    ahead = list(upstream.get(node, ()))
    while ahead:
        other = ahead.pop()
        if other in upstream and other not in found:
            found.add(other)
            ahead += upstream[other]
    return found


def test_stages_put_a_node_after_the_last_of_its_upstreams() -> None:
    upstream = {"load": ["extract", "check"], "check": ["extract"], "extract": [], "other": []}
    assert graph.stages(upstream) == [["extract", "other"], ["check"], ["load"]]


def test_stages_do_not_depend_on_the_order_of_the_document() -> None:
    upstream = {"c": ["a"], "a": [], "b": ["a"]}
    assert graph.stages(upstream) == graph.stages(dict(reversed(upstream.items()))) == [["a"], ["b", "c"]]


@given(graphs)
def test_stages_hold_exactly_what_is_not_behind_a_cycle(upstream: dict[str, list[str]]) -> None:
    found = graph.stages(upstream)
    place = {node: no for no, stage in enumerate(found) for node in stage}
    for node, others in upstream.items():
        above = ancestors(upstream, node)
        stuck = any(other in ancestors(upstream, other) for other in {*above, node})
        assert (node in place) is not stuck
        if node in place:
            assert place[node] == max((place[other] + 1 for other in others if other in upstream), default=0)


@given(graphs)
def test_each_cycle_is_a_way_round_and_every_tangle_has_one(upstream: dict[str, list[str]]) -> None:
    found = graph.cycles(upstream)
    for way in found:
        assert way[0] == min(way)
        assert len(set(way)) == len(way)
        for before, after in zip(way, [*way[1:], way[0]], strict=True):
            assert before in upstream[after]
    on_cycles = {node for node in upstream if node in ancestors(upstream, node)}
    tangles = {
        frozenset({node, *(o for o in ancestors(upstream, node) if node in ancestors(upstream, o))})
        for node in on_cycles
    }
    assert {tangle for tangle in tangles for way in found if set(way) <= tangle} == tangles
    assert len(found) == len(tangles)


def test_the_shortest_way_round_is_named() -> None:
    upstream = {"a": ["c", "d"], "b": ["a"], "c": ["b"], "d": ["c"]}
    assert graph.cycles(upstream) == [["a", "b", "c"]]


def test_two_cycles_are_both_named() -> None:
    upstream = {"x": ["y"], "y": ["x"], "a": ["b"], "b": ["a", "x"], "own": ["own"]}
    assert graph.cycles(upstream) == [["a", "b"], ["own"], ["x", "y"]]


def test_more_cycles_than_the_limit_are_left_out() -> None:
    assert len(graph.cycles({str(no): [str(no)] for no in range(30)}, limit=5)) == 5


def test_a_cycle_of_ten_thousand_meets_no_recursion_limit() -> None:
    size = 10_000
    upstream = {f"t{no:05}": [f"t{(no - 1) % size:05}"] for no in range(size)}
    assert graph.cycles(upstream) == [sorted(upstream)]


@given(graphs, st.dictionaries(st.sampled_from(NODES), st.sets(st.sampled_from(NODES)), max_size=4))
def test_not_before_names_what_is_no_ancestor(upstream: dict[str, list[str]], wanted: dict[str, set[str]]) -> None:
    placed = {node for stage in graph.stages(upstream) for node in stage}
    expected = {
        (node, other)
        for node, others in wanted.items()
        if node in placed
        for other in others
        if other not in ancestors(upstream, node)
    }
    assert set(graph.not_before(upstream, wanted)) == expected
