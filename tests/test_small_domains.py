"""The study of small domains: what is compared, what a file takes, and its tables."""

import sys

import numpy as np
import pytest
from conftest import ROOT
from families import two_domains, whole

import radapt_jax as rj
from radapt_jax.compress.moments import moments

BENCHMARKS = str(ROOT / "benchmarks")


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def dense(digits, faces):
    return two_domains(digits, faces, 1 / 16)


def test_every_way_computes_what_its_domains_do(dense, digits, faces):
    """As dense adapters, which all ways are measured as."""
    from smaller.small import WAYS, as_dense, bytes_of

    few = {"count": 32, "batch_size": 32}
    found = {
        name: moments(dense, name, data.splits["train"], **few)
        for name, data in (("digits", digits), ("faces", faces))
    }
    pixels = whole(digits.splits["test"], range(4))
    sizes = {}
    for name in ("dense", "int4", "joint alternating, K = C/2, int2", "low_rank svd, K = C/4"):
        small = WAYS[name].apply(dense, found)
        plain = as_dense(dense, small)
        np.testing.assert_allclose(
            small.predict(pixels, domain="digits"),
            plain.predict(pixels, domain="digits"),
            atol=1e-5,
        )
        sizes[name] = sum(bytes_of(small["digits"]))
    assert list(sizes.values()).index(max(sizes.values())) == 0
    assert min(sizes, key=sizes.get) == "joint alternating, K = C/2, int2"


def row(way, training, domain, seed, top1, size=100):
    return {
        **{"way": way, "training": training, "domain": domain, "seed": seed},
        **{"test_top1": top1, "val_top1": top1, "bytes": size},
    }


def test_tables_compare_with_the_control_of_the_same_training():
    import blocks

    lines = []
    for seed, shift in (("0", 0.0), ("1", 1.0)):
        for domain, start in (("a", 50.0), ("b", 70.0)):
            top1 = start + shift
            lines += [
                row("dense", "none", domain, seed, str(top1), "800"),
                row("dense", "0.03", domain, seed, str(top1 + 2), "800"),
                row("int4", "none", domain, seed, str(top1 - 1), "100"),
                row("int4", "statistics", domain, seed, str(top1 - 0.5), "100"),
                row("int4", "0.03", domain, seed, str(top1 + 1), "100"),
                row("int4", "0.1", domain, seed, "", "100"),
            ]
    head, _, dense, small = blocks.compression(lines).splitlines()
    assert head.count("|") == dense.count("|") == 7
    assert "| dense | 0.8 | 1/1.0 | 60.5 ± 0.7 |" in dense
    assert "1/8.0 | 59.5 ± 0.7 (-1.00 [-1.00, -1.00])" in small
    assert "60.0 ± 0.7 (-0.50" in small
    assert "61.5 ± 0.7 (-1.00" in small  # against 62.5, dense adapters trained as long
    by_domain = blocks.compression_by_domain(lines).splitlines()
    assert by_domain[0] == "| domain | dense, not fine-tuned | dense | int4 |"
    assert by_domain[-1] == "| mean | 60.5 ± 0.7 | 62.5 ± 0.7 | 61.5 ± 0.7 |"


def test_the_rate_is_chosen_on_validation_images():
    from smaller.trained import CHOSEN_WITH, RATES, best_rate

    lines = [
        row(CHOSEN_WITH, str(rate), "a", "0", str(top1))
        for rate, top1 in zip(RATES, (50, 52, 51), strict=True)
    ]
    assert best_rate(lines) == RATES[1]
    assert best_rate([*lines, row(CHOSEN_WITH, str(RATES[0]), "a", "1", "99")]) == RATES[1]
    assert rj.compress.fits.FITS.keys() >= {"alternating"}
