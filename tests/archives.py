"""Small archives in the layout of the Visual Decathlon's, made of the embedded images.

What is known of the official layout: tensorflow-datasets' `visual_domain_decathlon` fixes the
devkit's folder, the tar of each domain and that `file_name` is "data/" and the member's name.
"""

import functools
import gzip
import hashlib
import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from radapt_jax.data.decathlon.archives import DEVKIT, IMAGENET, IMAGES, ArchiveFacts
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.sources.embedded import open_embedded

IMAGES_OF = {  # the embedded domain that stands for each
    "imagenet12": "pictures",
    "aircraft": "pictures",
    "cifar100": "pictures",
    "daimlerpedcls": "faces",
    "dtd": "surfaces",
    "gtsrb": "pictures",
    "vgg-flowers": "pictures",
    "omniglot": "digits",
    "svhn": "digits",
    "ucf101": "pictures",
}
AMOUNTS = {"train": 12, "val": 6, "test": 6}
UNREADABLE = "dtd"  # the first training image of this domain


def make_archives(folder, images_per_split=AMOUNTS, domains=tuple(DECATHLON), edit=None, seed=0):
    """Write the three archives and the test labels (`labels/<domain>_test.json`).

    Labels are spread from the first class to the last; the classes of an original image and of
    its new label go together, so that there is something to learn. The validation split lacks
    the first class.

    Args:
      folder: written to; made if need be.
      images_per_split: of every domain, for "train", "val" and "test".
      domains: names of the decathlon's.
      edit: called with the name and content of each annotation file before it is written, and
        with the name and members (a dict of names to bytes) of each domain's tar.
      seed: of image ids and the order of members.

    Returns:
      File name to `ArchiveFacts`.
    """
    folder = Path(folder)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    edit = edit or (lambda name, content: None)
    annotations, tars = {}, {}
    for domain in domains:
        rng = np.random.default_rng([seed, list(DECATHLON).index(domain)])
        contents, images = _domain(domain, images_per_split, rng)
        (folder / "labels" / f"{domain}_test.json").write_text(json.dumps(contents["test"]))
        stripped = contents.pop("test")
        del stripped["annotations"]
        for split, content in {**contents, "test_stripped": stripped}.items():
            edit(f"{domain}_{split}.json", content)
            annotations[f"{domain}_{split}.json"] = json.dumps(content).encode()
        edit(f"{domain}.tar", images)
        tars[f"{domain}.tar"] = _tar(images)
    devkit = {
        "decathlon-1.0/README": b"Visual Decathlon, in small",
        **{f"decathlon-1.0/annotations/{name}": data for name, data in annotations.items()},
    }
    imagenet = tars.pop("imagenet12.tar", None) or _tar({})
    contents = {
        DEVKIT: gzip.compress(_tar(devkit), mtime=0),
        IMAGES: gzip.compress(_tar(tars), mtime=0),
        IMAGENET: imagenet,
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return facts_of(folder)


def facts_of(folder):
    """Return size and sha256 of the archives as they are."""
    data = {name: (Path(folder) / name).read_bytes() for name in (DEVKIT, IMAGES, IMAGENET)}
    return {
        name: ArchiveFacts(len(held), hashlib.sha256(held).hexdigest())
        for name, held in data.items()
    }


def _domain(domain, amounts, rng):
    """Return the annotation files' contents by split, and the images by member name."""
    facts = DECATHLON[domain]
    position = list(DECATHLON).index(domain)
    names = open_embedded(IMAGES_OF[domain]).classes
    most = min(facts.num_classes, len(names), max(amounts["train"] // 3, 2))
    labels = np.linspace(0, facts.num_classes - 1, most).round().astype(int)
    needed = sum(-(-amount // max(most - 1, 1)) for amount in amounts.values())
    pictures = _pictures(IMAGES_OF[domain], most, needed)
    first = facts.category_base - 1
    ids = iter(first + 1 + rng.permutation(9_000_000 // 9)[: sum(amounts.values())] * 9)
    contents, images = {}, {}
    for split, amount in amounts.items():
        classes = range(1 if split == "val" else 0, most)
        listing = [
            _category(domain, label, names, dict(enumerate(labels.tolist())))
            for label in range(facts.num_classes)
        ]
        content = {"images": [], "annotations": [], "categories": listing}
        chosen = list(itertools.islice(itertools.cycle(classes), amount))
        for index, original in enumerate(chosen):
            suffix, data = pictures[original].pop()
            number, label = int(next(ids)), int(labels[original])
            if domain == UNREADABLE and split == "train" and index == 0:
                data = data[: len(data) // 3]
            else:
                suffix, data = _stored(suffix, data, index + position)
            below = f"{label + 1:04}/{number}" if split != "test" else f"{number}"
            name = f"{domain}/{split}/{below}{suffix}"
            images[name] = data
            content["images"].append({"id": number, "file_name": f"data/{name}"})
            content["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": facts.category_base + label,
                    "iscrowd": 0,
                }
            )
        contents[split] = content
    order = (
        sorted(images) if position % 2 else [list(images)[i] for i in rng.permutation(len(images))]
    )
    return contents, {name: images[name] for name in order}


def _category(domain, label, names, placed):
    """Name a class after the images that stand for it; omniglot's names repeat."""
    if domain == "omniglot":
        name = f"character{label % 55 + 1:02}"
    elif len(names) == DECATHLON[domain].num_classes:
        name = names[label]
    else:
        original = next((key for key, value in placed.items() if value == label), None)
        name = f"{domain} {label}" if original is None else f"{names[original]} ({label})"
    return {"id": DECATHLON[domain].category_base + label, "name": name, "supercategory": domain}


def _pictures(name, classes, needed):
    """Return `needed` images of each of the first classes, as files in memory."""
    found = {original: [] for original in range(classes)}
    for example in _examples(name):
        if example.label in found and len(found[example.label]) < needed:
            found[example.label].append((".jpg", _encoded(Image.fromarray(example.image), "JPEG")))
    assert all(len(held) == needed for held in found.values()), f"{name} has too few images"
    return found


@functools.cache
def _examples(name):
    return list(open_embedded(name).splits["train"]())


def _stored(suffix, data, index):
    """Return an image as it is, or at a shorter side of 72 pixels, in grey or with a palette."""
    picture = Image.open(io.BytesIO(data))
    if index % 6 == 0:
        return suffix, data
    wide = picture.width / picture.height
    wide = 1.5 if index % 6 == 2 else 0.5 if index % 6 == 3 else wide
    size = (round(72 * max(wide, 1)), round(72 * max(1 / wide, 1)))
    picture = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if index % 6 == 4:
        picture = picture.convert("L")
    elif index % 6 == 5:
        suffix, picture = ".png", picture.quantize(64)
    return suffix, _encoded(picture, "PNG" if suffix == ".png" else "JPEG")


def _encoded(picture, kind):
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def _tar(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folders = {str(parent) for name in members for parent in Path(name).parents}
        for name in sorted(folders - {"."}):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
