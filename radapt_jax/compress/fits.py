"""How factors are fitted to adapters: to their values alone, or to what matters of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from radapt_jax.compress.moments import Moments
from radapt_jax.compress.svd import Factors, Matrices, joint_svd
from radapt_jax.compress.weighted import alternating, closed_form, whitened, whitenings

SVD, ALTERNATING = "svd", "alternating"
ByDomain = Mapping[str, Matrices]
FITS: Mapping[str, Callable[[ByDomain, Mapping[str, Moments], Mapping[str, int]], Factors]] = {
    SVD: lambda alphas, _, ranks: joint_svd(alphas, ranks),
    "whitened": closed_form,
    ALTERNATING: alternating,
}


@dataclasses.dataclass(frozen=True)
class Fitting:
    """One of `FITS`, and the moments of each domain that it takes (none for "svd")."""

    name: str
    moments: Mapping[str, Moments]

    @classmethod
    def of(
        cls, name: str | None, moments: Mapping[str, Moments] | None, domains: Collection[str]
    ) -> Fitting:
        """Return the fitting of some domains; without a name, "alternating" if there are moments.

        Raises:
          ValueError: there is no such fit, or not the moments that it needs.
        """
        found = name or (SVD if moments is None else ALTERNATING)
        if found not in FITS:
            raise ValueError(f"found fit {found!r}; expected one of {list(FITS)}.")
        needed = set() if found == SVD else set(domains)
        there = set(moments or ())
        if needed - there or (found == SVD and there):
            raise ValueError(
                f"found moments of {sorted(there)}; fit {found!r} expects those of "
                f"{sorted(needed)}: {{name: radapt_jax.moments_of(family, name, images)}}."
            )
        return cls(found, moments or {})

    def factors(self, alphas: ByDomain, ranks: Mapping[str, int]) -> Factors:
        """Return β by convolution, and γᵀ by domain and convolution."""
        return FITS[self.name](alphas, self.moments, ranks)

    def weighed(self, alphas: ByDomain) -> dict[str, Matrices]:
        """Return what is compressed of each domain, whitened by moments if there are any.

        Its singular values tell how much each rank matters, in all layers alike.
        """
        if self.name == SVD:
            return dict(alphas)
        names = list(alphas)
        by = zip(names, whitenings([self.moments[name] for name in names]), strict=True)
        return {name: whitened(alphas[name], own) for name, own in by}
