"""Load a family, add a domain from a file, predict a mixed batch, fold one domain, export it.

python examples/serve.py runs/quickstart
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from radapt_jax import Family
from radapt_jax.data.sources.embedded import open_embedded


def first_images(name, amount):
    """The first test images of an embedded domain, as arrays."""
    examples = open_embedded(name).splits["test"]()
    return [example.image for example, _ in zip(examples, range(amount), strict=False)]


def main(workdir):
    family = Family.load(workdir)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.safetensors"
        family.save_domain("digits", file)
        print(f"digits: a file of {file.stat().st_size / 1000:.0f} kB")
        family.load_domain(file, name="numbers")

        digits = family.preprocess(first_images("digits", 3), domain="numbers")
        surfaces = family.preprocess(first_images("surfaces", 3), domain="surfaces")
        batch = np.concatenate([digits, surfaces])
        names = ["numbers"] * 3 + ["surfaces"] * 3
        for name, row in zip(names, family.predict(batch, domains=names), strict=True):
            print(f"{name}: {family[name].domain.classes[row.argmax()]} ({row.max():.2f})")

        folded = family.fold("numbers")
        same = np.abs(folded.predict(digits) - family.predict(digits, domain="numbers")).max()
        print(f"folded: a plain network; probabilities differ by {same:.0e} at most")
        family.export("numbers", Path(folder) / "numbers.stablehlo")
        size = (Path(folder) / "numbers.stablehlo").stat().st_size
        print(f"exported: {size / 1e6:.1f} MB that jax alone runs")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
