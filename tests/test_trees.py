"""Fingerprints, counts and comparisons of trees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radapt_jax.utils import trees

LEAVES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(LEAVES)
def test_fingerprint_ignores_order_and_sees_values(leaves):
    tree = {"x": {name: np.array(values, np.float32) for name, values in leaves.items()}}
    reordered = {"x": dict(reversed(tree["x"].items()))}
    assert trees.fingerprint(tree) == trees.fingerprint(reordered)
    changed = trees.to_numpy(tree)
    first = changed["x"][next(iter(leaves))]
    first.view(np.uint32)[0] ^= 1  # the smallest change there is
    assert trees.fingerprint(tree) != trees.fingerprint(changed)
    assert trees.count(tree) == sum(map(len, leaves.values()))


def test_fingerprint_sees_shape_dtype_and_path():
    zeros = np.zeros(4, np.float32)
    found = {
        trees.fingerprint(tree)
        for tree in (
            {"a": zeros},
            {"b": zeros},
            {"a": zeros.reshape(2, 2)},
            {"a": zeros.view(np.int32)},
            {"a": {"a": zeros}},
        )
    }
    assert len(found) == 5


def test_check_like_shows_both_sides():
    expected = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float32)}
    trees.check_like(expected, expected, "it")
    with pytest.raises(ValueError, match=r"a: found \(2, 4\) float32, expected \(2, 3\) float32"):
        trees.check_like({**expected, "a": np.zeros((2, 4), np.float32)}, expected, "it")
    with pytest.raises(ValueError, match="b: found missing"):
        trees.check_like({"a": expected["a"]}, expected, "it")
    with pytest.raises(ValueError, match="float64, expected"):
        trees.check_like({**expected, "b": np.zeros(1)}, expected, "it")
