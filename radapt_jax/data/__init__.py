"""From images on disk to batches: what a domain is, where its images are, what a step sees.

Start with `load.load_domain`. A source of images (`sources`) lists them, `build_cache` decodes them
once, `views` draws windows, `batches` makes batches, and `augment` normalises on the device.
"""

from radapt_jax.data.domain import Domain
from radapt_jax.data.load import DomainData, load_domain
from radapt_jax.data.spec import DataSpec

__all__ = ["DataSpec", "Domain", "DomainData", "load_domain"]
