"""A cache that projects share."""

import random
from collections import OrderedDict

from convgrpc.fairness.cache import FairCache


def test_project_with_the_most_loses_first() -> None:
    """Another project keeps what it has."""
    cache: FairCache[int] = FairCache(100)
    for number in range(10):
        cache.put("small", number, number, 4)
    for number in range(1000):
        cache.put("large", number, number, 10)
    assert [cache.get("small", number) for number in range(10)] == list(range(10))
    assert [cache.get("large", number) for number in range(994, 1000)] == list(range(994, 1000))
    assert cache.get("large", 993) is None


def test_value_larger_than_the_cache_is_not_kept_and_costs_nothing_else() -> None:
    cache: FairCache[str] = FairCache(100)
    cache.put("small", 0, "kept", 4)
    cache.put("large", 0, "whole", 200)
    assert (cache.get("small", 0), cache.get("large", 0), cache.weight) == ("kept", None, 4)


def test_least_recently_used_value_is_lost_first() -> None:
    cache: FairCache[str] = FairCache(3)
    for key in "abc":
        cache.put("one", key, key, 1)
    assert cache.get("one", "a") == "a"
    cache.put("one", "d", "d", 1)
    assert [cache.get("one", key) for key in "abcd"] == ["a", None, "c", "d"]


def test_weights_add_up_whatever_is_done() -> None:
    """A model of plain dictionaries has the same values as long as there is room."""
    source = random.Random(1)
    cache: FairCache[int] = FairCache(10**9)
    model: OrderedDict[tuple[str, int], tuple[int, int]] = OrderedDict()
    for step in range(5000):
        project, key = source.choice("abc"), source.randrange(20)
        if source.random() < 0.3:
            cache.forget(project, key)
            model.pop((project, key), None)
        else:
            weight = source.randrange(1, 1000)
            cache.put(project, key, step, weight)
            model[project, key] = step, weight
        assert cache.weight == sum(weight for _, weight in model.values())
    for project in "abc":
        for key in range(20):
            assert cache.get(project, key) == model.get((project, key), (None, 0))[0]
    small: FairCache[int] = FairCache(1000)
    for step in range(5000):
        small.put(source.choice("abcd"), source.randrange(50), step, source.randrange(1, 200))
        assert small.weight <= 1000
