"""What the tests may take of a machine, and what becomes of programs that are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import process
import pytest

pytestmark = pytest.mark.skipif(not process.KNOWN, reason="there is no /proc here")


@pytest.mark.parametrize(
    ("maps", "resident"), [(process.MOST_MAPS, 10**9), (100, process.MOST_BYTES)]
)
def test_a_module_that_takes_too_much_is_named(maps, resident):
    process.check(process.MOST_MAPS - 1, process.MOST_BYTES - 1, "a")
    with pytest.raises(AssertionError, match=r"^test_large: found .* expected fewer than 15,000"):
        process.check(maps, resident, "test_large")


def test_dropped_programs_leave_no_maps():
    jnp.sin(np.eye(8)).block_until_ready()  # the first one starts threads, too
    process.drop_programs()
    before = process.maps()
    kept = [jax.jit(lambda x, i=i: jnp.sin(x) @ x + i) for i in range(20)]
    for run in kept:
        run(np.eye(8)).block_until_ready()
    held = process.maps() - before
    process.drop_programs()
    assert held >= len(kept)
    assert process.maps() - before < held / 4
