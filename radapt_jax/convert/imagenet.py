"""The 1,000 classes of ImageNet (ILSVRC 2012), and what its networks are usually fed with."""

from __future__ import annotations

from pathlib import Path

from radapt_jax.data.decathlon.facts import DECATHLON

MEAN, STD = DECATHLON["imagenet12"].mean, DECATHLON["imagenet12"].std


def imagenet_classes(count: int = 1000) -> tuple[str, ...] | None:
    """Return the names in label order: the first word that WordNet 3.0 has for each synset.

    Four names that would be there twice say which they are, such as "crane, bird".

    Args:
      count: outputs of the head that wants them; for any but 1,000 there are none: None.
    """
    if count != 1000:
        return None
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
