"""Prepares the Visual Decathlon from its official archives, without TensorFlow."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from radapt_jax.data.decathlon.archives import (
    DEVKIT,
    HOMEPAGE,
    IMAGENET,
    IMAGES,
    OFFICIAL,
    Members,
    check_archives,
    image_key,
    read_json,
)
from radapt_jax.data.decathlon.archives import ArchiveFacts as ArchiveFacts
from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name

log = logging.getLogger(__name__)
# Our split to the ending of its annotation file's name.
ANNOTATIONS = {"train": "train", "validation": "val", "test": "test_stripped"}


def prepare_decathlon(
    archives: str | Path,
    data_dir: str | Path,
    *,
    domains: Sequence[str] = tuple(DECATHLON),
    mirror: str | None = None,
    expected: Mapping[str, ArchiveFacts] = OFFICIAL,
) -> None:
    """Prepare those of the given domains that are not prepared yet, for `open_decathlon`.

    The archives that these domains need are checked once, by size and sha256. Images are read from
    them in place and stored byte by byte. Test images have no labels there: they get -1.

    Args:
      archives: folder with decathlon-1.0-devkit.tar.gz, decathlon-1.0-data.tar.gz and (for
        imagenet12) decathlon-1.0-data-imagenet.tar.
      data_dir: a tensorflow-datasets folder; `decathlon/<domain>/<version>` is written there.
      domains: names as in `radapt_jax.data.decathlon.facts.DECATHLON`.
      mirror: http, https or file URL of a folder from which missing archives are fetched into
        `archives`.
      expected: size and sha256 of each archive.

    Raises:
      FileNotFoundError: an archive is missing, and no mirror is given.
      KeyError: `expected` lacks an archive that is needed.
      OSError: an archive cannot be fetched.
      ValueError: an archive is not the official one or is damaged, an annotation contradicts
        the domain's facts, images are missing, or a name is not that of a domain.
    """
    archives, data_dir = Path(archives).expanduser(), Path(data_dir).expanduser()
    names = list(dict.fromkeys(decathlon_name(name) or name for name in domains))
    if unknown := [name for name in names if name not in DECATHLON]:
        raise ValueError(f"found domains {unknown}; expected some of {list(DECATHLON)}.")
    missing = [name for name in names if not _is_prepared(name, data_dir)]
    needed = dict.fromkeys([DEVKIT, *map(_archive, missing)]) if missing else {}
    check_archives(archives, {name: expected[name] for name in needed}, mirror)
    for name in missing:
        builder = Decathlon(config=name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=archives)
        )


def _is_prepared(domain: str, data_dir: Path) -> bool:
    version = data_dir / Decathlon.name / domain / str(Decathlon.VERSION)
    for folder in version.parent.glob(f"incomplete.*_{version.name}"):
        log.warning("%s is left of a run that was stopped; delete it if none is running.", folder)
    return (version / "dataset_info.json").is_file()


def _archive(domain: str) -> str:
    return IMAGENET if domain == "imagenet12" else IMAGES


class Decathlon(tfds.core.GeneratorBasedBuilder):
    """The Visual Decathlon (Rebuffi et al., NeurIPS 2017): ten domains, one config each.

    Label l is category id `category_base` + l, in every split; test labels are -1. `image_id` is
    the number under which the challenge scores an image, and `name` its file name there.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=domain) for domain in DECATHLON]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put the archives of {HOMEPAGE} into one folder."
    pkg_dir_path = Path(__file__).parent  # or else tfds looks for metadata files of its own

    def _info(self) -> tfds.core.DatasetInfo:
        classes = DECATHLON[self.builder_config.name].num_classes
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=classes),
            "image_id": tfds.features.Scalar(np.int64),
            "name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=HOMEPAGE,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        domain, folder = self.builder_config.name, Path(dl_manager.manual_dir)
        devkit = folder / DEVKIT
        files = {split: f"{domain}_{ending}.json" for split, ending in ANNOTATIONS.items()}
        contents = read_json(devkit, list(files.values()))
        splits = {
            split: _read_annotations(contents[file], domain, split, f"{devkit}: {file}")
            for split, file in files.items()
        }
        if names := _class_names(contents[files["train"]], domain):
            self.info.features["label"].names = names
        contents.clear()
        members = Members(folder / _archive(domain), domain)
        wanted = [image.name for images in splits.values() for image in images]
        places = members.find({image_key(name, domain) for name in wanted})
        if absent := [name for name in wanted if image_key(name, domain) not in places]:
            raise ValueError(
                f"{members.archive} lacks {len(absent):,} of {len(wanted):,} images of {domain} "
                f"that {devkit.name} names, such as {absent[0]}. Devkit and images must be of one "
                "version: fetch both again."
            )
        return {
            split: self._generate_examples(members, images, places)
            for split, images in splits.items()
        }

    def _generate_examples(
        self, members: Members, images: list[_Image], places: Mapping[str, tuple[int, int]]
    ) -> Iterator[tuple[int, dict]]:
        found = [(places[image_key(image.name, members.domain)], image) for image in images]
        found.sort()  # front to back through the archive
        data_of = members.read([place for place, _ in found])
        for (_, image), data in zip(found, data_of, strict=True):
            yield (
                image.id,
                {
                    "image": io.BytesIO(data),
                    "label": image.label,
                    "image_id": image.id,
                    "name": image.name,
                },
            )


class _Image(NamedTuple):
    """One image of an annotation file."""

    id: int
    name: str
    label: int


def _read_annotations(content: Any, domain: str, split: str, where: str) -> list[_Image]:
    """Return a split's images; see `Decathlon` for their labels."""
    try:
        images = [(int(image["id"]), str(image["file_name"])) for image in content["images"]]
        pairs = [
            (int(annotation["image_id"]), int(annotation["category_id"]))
            for annotation in (content["annotations"] if split != "test" else ())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} is not in the COCO format: {error!r}. Expected lists 'images' (id, "
            "file_name) and 'annotations' (image_id, category_id), ids being integers."
        ) from error
    names, categories = dict(images), dict(pairs)
    if len(names) < len(images) or len(categories) < len(set(pairs)):
        raise ValueError(
            f"{where}: found an image id with two file names or two categories; expected one of "
            "each. The file is damaged: fetch the devkit again."
        )
    if split == "test":
        return [_Image(number, name, -1) for number, name in names.items()]
    facts = DECATHLON[domain]
    last = facts.category_base + facts.num_classes - 1
    for number, category in categories.items():
        if not facts.category_base <= category <= last:
            raise ValueError(
                f"{where} gives image {number} category {category}; {domain} has categories "
                f"{facts.category_base} to {last}."
            )
    if names.keys() != categories.keys():
        odd = sorted(names.keys() ^ categories.keys())
        raise ValueError(
            f"{where}: {len(odd):,} images have no category or no file name, such as image "
            f"{odd[0]}; expected one annotation for every image."
        )
    return [
        _Image(number, name, categories[number] - facts.category_base)
        for number, name in names.items()
    ]


def _class_names(content: Any, domain: str) -> list[str]:
    """Return the categories' names in label order, or [] if they do not tell classes apart."""
    facts = DECATHLON[domain]
    try:
        names = {
            int(category["id"]) - facts.category_base: " ".join(str(category["name"]).split())
            for category in content["categories"]
        }
    except (KeyError, TypeError, ValueError):
        return []
    labels = range(facts.num_classes)
    whole = names.keys() == set(labels) and len(set(names.values()) - {""}) == len(labels)
    return [names[label] for label in labels] if whole else []
