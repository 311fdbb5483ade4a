"""The Visual Decathlon: from archives in the official layout to examples."""

import functools
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import AMOUNTS, UNREADABLE, facts_of, make_archives
from conftest import ROOT
from PIL import Image

from radapt_jax.__main__ import main
from radapt_jax.data.decathlon.archives import DEVKIT, IMAGENET, IMAGES, OFFICIAL, image_key
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.decathlon.prepare import prepare_decathlon
from radapt_jax.data.images import decode
from radapt_jax.data.sources.decathlon import open_decathlon
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.data.sources.tfds import open_tfds

OUR_SPLITS = {"train": "train", "val": "val", "test": "test_stripped"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All ten domains: the folder of their archives, what these must be, and the data_dir."""
    folder = tmp_path_factory.mktemp("archives")
    expected = make_archives(folder)
    data_dir = tmp_path_factory.mktemp("decathlon")
    prepare_decathlon(folder, data_dir, expected=expected)
    return folder, expected, data_dir


@pytest.fixture
def make(made, tmp_path):
    """Make the archives of `dtd` alone, in an empty folder."""
    return functools.partial(make_archives, tmp_path / "archives", domains=["dtd"])


def prepare_dtd(tmp_path, expected=None, **options):
    folder = tmp_path / "archives"
    expected = expected or facts_of(folder)
    prepare_decathlon(folder, tmp_path / "out", domains=["dtd"], expected=expected, **options)


def truth(folder, domain, split):
    """Read a split straight from the archives: image id to (label, bytes, file name)."""
    with tarfile.open(folder / DEVKIT) as devkit:
        name = f"decathlon-1.0/annotations/{domain}_{OUR_SPLITS[split]}.json"
        content = json.load(devkit.extractfile(name))
    labels = {
        note["image_id"]: note["category_id"] - DECATHLON[domain].category_base
        for note in content.get("annotations", [])
    }
    if domain == "imagenet12":
        inner = (folder / IMAGENET).read_bytes()
    else:
        with tarfile.open(folder / IMAGES) as outer:
            inner = outer.extractfile(f"{domain}.tar").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        return {
            image["id"]: (
                labels.get(image["id"], -1),
                tar.extractfile(image["file_name"].removeprefix("data/")).read(),
                image["file_name"],
            )
            for image in content["images"]
        }


# What comes out


@pytest.mark.parametrize("domain", DECATHLON)
def test_every_domain_comes_out_as_it_went_in(made, domain):
    folder, _, data_dir = made
    source = open_decathlon(domain, data_dir)
    assert (source.name, len(source.classes)) == (domain, DECATHLON[domain].num_classes)
    assert source.splits.keys() == {"train", "val", "test"}
    for split, read in source.splits.items():
        examples = list(read())
        found = {example.image_id: (example.label, example.image) for example in examples}
        expected = truth(folder, domain, split)
        assert len(found) == len(examples) == AMOUNTS[split]
        assert found == {number: held[:2] for number, held in expected.items()}
        assert [e.image_id for e in read()] == [e.image_id for e in examples]
        labels = {example.label for example in examples}
        if split == "train":
            assert {0, DECATHLON[domain].num_classes - 1} <= labels
        elif split == "val":
            assert min(labels) > 0
        else:
            assert labels == {-1}


def test_image_ids_tell_all_images_apart(made):
    seen = [
        example.image_id
        for domain in DECATHLON
        for read in open_decathlon(domain, made[2]).splits.values()
        for example in read()
    ]
    assert len(seen) == len(set(seen)) == 10 * sum(AMOUNTS.values())


def test_images_are_of_many_kinds_and_one_cannot_be_read(made):
    sizes, modes, unreadable = set(), set(), []
    for domain in DECATHLON:
        for example in open_decathlon(domain, made[2]).splits["train"]():
            try:
                decode(example.image, 72)
            except ValueError:
                unreadable.append(example.where)
            else:
                picture = Image.open(io.BytesIO(example.image))
                sizes.add(picture.width / picture.height)
                modes.add(picture.mode)
    assert {1.5, 0.5, 1.0} <= sizes
    assert {"L", "P", "RGB"} <= modes
    assert len(unreadable) == 1
    assert unreadable[0].startswith(f"decathlon/{UNREADABLE} train")
    assert ", image 4" in unreadable[0]


def test_classes_have_names_where_these_tell_them_apart(made):
    assert open_decathlon("daimlerpedcls", made[2]).classes == ("no face", "face")
    assert open_decathlon("omniglot", made[2]).classes == tuple(map(str, range(1623)))


def test_both_spellings_of_flowers(made):
    source = open_decathlon("vgg_flowers", made[2])
    assert source.name == "vgg_flowers"
    assert source.key == open_decathlon("vgg-flowers", made[2]).key


def test_records_have_the_file_names(made):
    folder, _, data_dir = made
    builder = tfds.builder_from_directory(data_dir / "decathlon" / "svhn" / "1.0.0")
    assert builder.info.splits.keys() == {"train", "validation", "test"}
    skip = {"image": tfds.decode.SkipDecoding()}
    records = builder.as_data_source(split="validation", decoders=skip)
    found = {int(record["image_id"]): record["name"] for record in records}
    expected = truth(folder, "svhn", "val")
    assert {number: name.decode() for number, name in found.items()} == {
        number: held[2] for number, held in expected.items()
    }


def test_the_answers_fit_the_test_images(made):
    folder, _, _ = made
    for domain, facts in DECATHLON.items():
        answers = json.loads((folder / "labels" / f"{domain}_test.json").read_text())
        assert {note["image_id"] for note in answers["annotations"]} == set(
            truth(folder, domain, "test")
        )
        last = facts.category_base + facts.num_classes
        assert all(
            facts.category_base <= note["category_id"] < last for note in answers["annotations"]
        )


def test_order_of_categories_does_not_matter(make, tmp_path):
    def turn(name, content):
        if name.endswith(".json"):
            content["categories"].reverse()

    expected = make(edit=turn)
    prepare_dtd(tmp_path, expected)
    source = open_decathlon("dtd", tmp_path / "out")
    for example in source.splits["val"]():
        assert example.label == truth(tmp_path / "archives", "dtd", "val")[example.image_id][0]
    assert source.classes[0] == "brick (0)"


@pytest.mark.parametrize("prefix", ["./", "data/", "/x/decathlon-1.0/data/"])
def test_leading_folders_of_members_may_differ(make, tmp_path, prefix):
    def move(name, content):
        if name == "dtd.tar":
            moved = {f"{prefix}{member}": data for member, data in content.items()}
            content.clear()
            content.update(moved)

    prepare_dtd(tmp_path, make(edit=move))
    found = {e.image_id for e in open_decathlon("dtd", tmp_path / "out").splits["test"]()}
    assert found == {
        int(Path(name).stem) for name in _names(tmp_path / "archives" / IMAGES) if "/test/" in name
    }


def _names(archive):
    with tarfile.open(archive) as outer:
        inner = io.BytesIO(outer.extractfile("dtd.tar").read())
    with tarfile.open(fileobj=inner) as tar:
        return [member.name for member in tar if member.isfile()]


def test_image_keys():
    for path in ("data/dtd/test/1.jpg", "dtd/test/1.jpg", "./dtd/test/1.jpg", "test\\1.jpg"):
        assert image_key(path, "dtd") == "test/1.jpg"
    assert image_key("data/dtd/train/dtd/1.jpg", "dtd") == "train/dtd/1.jpg"


# Archives that are not as they should be


def test_official_facts_are_those_of_tensorflow_datasets():
    listing = files(tfds) / "url_checksums" / "visual_domain_decathlon.txt"
    rows = [line.split("\t") for line in listing.read_text().splitlines()]
    assert {row[3]: (int(row[1]), row[2]) for row in rows} == {
        name: (facts.size, facts.sha256) for name, facts in OFFICIAL.items()
    }


def test_missing_archives_are_named(make, tmp_path):
    expected = make()
    (tmp_path / "archives" / IMAGENET).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 2 archives(.|\n)*{IMAGENET}: 10,240 bytes"):
        prepare_decathlon(
            tmp_path / "archives", tmp_path / "out", domains=["imagenet12"], expected=expected
        )
    prepare_dtd(tmp_path, expected)  # needs no ImageNet


def test_archives_of_another_size_or_content_are_refused(make, tmp_path):
    expected = make()
    archive = tmp_path / "archives" / IMAGES
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1])
    size = f"{len(whole) - 1:,} bytes"
    with pytest.raises(ValueError, match=rf"{IMAGES} is not(.|\n)*{size}(.|\n)*{len(whole):,}"):
        prepare_dtd(tmp_path, expected)
    archive.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ValueError, match=rf"{IMAGES}(.|\n)*{expected[IMAGES].sha256}"):
        prepare_dtd(tmp_path, expected)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=DEVKIT):
        prepare_decathlon(tmp_path / "archives", tmp_path / "out", domains=["dtd"])


def test_a_damaged_archive_is_named(make, tmp_path):
    make()
    for name in (DEVKIT, IMAGES):
        archive = tmp_path / "archives" / name
        whole = archive.read_bytes()
        tar = gzip.decompress(whole)
        broken = {
            "gzip cut": whole[: len(whole) // 2],
            "no gzip": b"<html>404</html>" * 64,
            "tar cut": gzip.compress(tar[: len(tar) // 2]),
            "gzip altered": whole[:900] + bytes(200) + whole[1100:],
        }
        for how, data in broken.items():
            archive.write_bytes(data)
            with pytest.raises(ValueError, match=name):
                prepare_dtd(tmp_path)
            assert not list((tmp_path / "out").rglob("*record*")), how
        archive.write_bytes(whole)


def test_a_cut_imagenet_is_named(made, tmp_path):
    make_archives(tmp_path, domains=["imagenet12"])
    archive = tmp_path / IMAGENET
    with tarfile.open(archive) as tar:
        last = [member for member in tar if member.isfile()][-1]
    archive.write_bytes(archive.read_bytes()[: last.offset_data + last.size // 2])
    with pytest.raises(ValueError, match=IMAGENET):
        prepare_decathlon(
            tmp_path, tmp_path / "out", domains=["imagenet12"], expected=facts_of(tmp_path)
        )


def test_json_that_is_none_is_named(make, tmp_path):
    make()
    archive = tmp_path / "archives" / DEVKIT
    tar = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(tar.replace(b'{"images"', b'<"images"')))
    with pytest.raises(ValueError, match=rf"{DEVKIT}: .*dtd_.*json is no JSON"):
        prepare_dtd(tmp_path)


def _drop_image(name, content):
    if name == "dtd.tar":
        for member in list(content)[:3]:
            del content[member]


def _high_category(name, content):
    if name == "dtd_val.json":
        content["annotations"][2]["category_id"] = 40_000_048


def _low_category(name, content):
    if name == "dtd_train.json":
        content["annotations"][2]["category_id"] = 40_000_000


def _no_category(name, content):
    if name == "dtd_train.json":
        del content["annotations"][-1]


def _two_categories(name, content):
    if name == "dtd_train.json":
        content["annotations"].append({**content["annotations"][0], "category_id": 40_000_009})


def _other_format(name, content):
    if name == "dtd_test_stripped.json":
        content["pictures"] = content.pop("images")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_drop_image, rf"{IMAGES} lacks 3 of 24 images of dtd .* such as data/dtd/"),
        (_high_category, "dtd_val.json gives image 4.* category 40000048; .* 40000001 to 40000047"),
        (_low_category, "dtd_train.json gives image 4.* category 40000000"),
        (_no_category, "dtd_train.json: 1 images have no category"),
        (_two_categories, "dtd_train.json: found an image id with two"),
        (_other_format, "dtd_test_stripped.json is not in the COCO format: .*'images'"),
    ],
)
def test_contradictions_are_named(make, tmp_path, edit, message):
    with pytest.raises(ValueError, match=message):
        prepare_dtd(tmp_path, make(edit=edit))
    with pytest.raises(FileNotFoundError, match="python -m radapt_jax decathlon prepare"):
        open_decathlon("dtd", tmp_path / "out")


def test_a_domain_that_is_not_in_the_archives(make, tmp_path):
    expected = make()
    with pytest.raises(ValueError, match=rf"{DEVKIT} holds no .*svhn_train"):
        prepare_decathlon(
            tmp_path / "archives", tmp_path / "out", domains=["svhn"], expected=expected
        )
    with pytest.raises(ValueError, match=r"\['mnist'\]; expected some of \['imagenet12'"):
        prepare_decathlon(tmp_path / "archives", tmp_path / "out", domains=["mnist"])
    with pytest.raises(ValueError, match="'mnist'"):
        open_decathlon("mnist", tmp_path)


# Fetching, and running again


def test_missing_archives_come_from_a_mirror(make, tmp_path):
    expected = make()
    mirror = (tmp_path / "archives").rename(tmp_path / "mirror")
    prepare_dtd(tmp_path, expected, mirror=mirror.as_uri())
    assert sorted(path.name for path in (tmp_path / "archives").iterdir()) == sorted(
        [DEVKIT, IMAGES]
    )
    assert len(list(open_decathlon("dtd", tmp_path / "out").splits["train"]())) == 12


@pytest.mark.parametrize("change", [lambda data: data[:-5], lambda data: data + b"x", None])
def test_a_failed_fetch_leaves_nothing(make, tmp_path, change):
    expected = make()
    mirror = (tmp_path / "archives").rename(tmp_path / "mirror")
    devkit = mirror / DEVKIT
    if change:
        devkit.write_bytes(change(devkit.read_bytes()))
    else:
        devkit.unlink()
    with pytest.raises(ValueError if change else OSError, match=DEVKIT):
        prepare_dtd(tmp_path, expected, mirror=f"{mirror.as_uri()}/")
    assert not list((tmp_path / "archives").iterdir())


def test_only_the_web_and_files_are_mirrors(make, tmp_path):
    expected = make()
    for mirror in ("ftp://host/folder", "/folder", "data:,x"):
        with pytest.raises(ValueError, match="expected an http"):
            prepare_dtd(tmp_path, expected, mirror=mirror)


def test_what_is_prepared_is_left_alone(made, tmp_path, capsys):
    _, _, data_dir = made
    stamps = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    prepare_decathlon(tmp_path / "nowhere", data_dir)
    main(
        ["decathlon", "prepare", str(tmp_path / "nowhere"), str(data_dir), "--domains", "dtd,svhn"]
    )
    assert "dtd, svhn" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    with pytest.raises(SystemExit, match=r"error: .* lacks 2 of 2 archives"):
        main(["decathlon", "prepare", str(tmp_path / "nowhere"), str(tmp_path), "--domains", "dtd"])


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from archives import facts_of
from radapt_jax.data.decathlon import archives, prepare

def read(self, places):
    yield from whole(self, places[:4])
    os.kill(os.getpid(), signal.SIGKILL)

whole, archives.Members.read = archives.Members.read, read
folder, out = sys.argv[1:]
prepare.prepare_decathlon(folder, out, domains=["dtd"], expected=facts_of(folder))
"""


def test_starting_again_after_a_kill(make, tmp_path, caplog):
    make()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "archives"), str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with pytest.raises(FileNotFoundError, match="neither"):
        open_decathlon("dtd", tmp_path / "out")
    with caplog.at_level("WARNING", "radapt_jax"):
        prepare_dtd(tmp_path)
    assert "left of a run that was stopped" in caplog.text
    assert len(list(open_decathlon("dtd", tmp_path / "out").splits["train"]())) == 12


# Other datasets that tensorflow-datasets prepared


class VisualDomainDecathlon(tfds.core.GeneratorBasedBuilder):
    """One domain in the layout of tensorflow-datasets' own builder: no image ids, label names."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="aircraft"),)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "made by the test"
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=100),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        splits = {"train": "train", "test": "test", "validation": "val"}
        return {theirs: self._generate_examples(folder, ours) for theirs, ours in splits.items()}

    def _generate_examples(self, folder, split):
        for label, data, name in truth(folder, "aircraft", split).values():
            name = name.removeprefix("data/")
            yield name, {"name": name, "image": io.BytesIO(data), "label": label}


def test_what_tensorflow_datasets_prepared_is_read_as_well(made, tmp_path):
    folder, _, _ = made
    builder = VisualDomainDecathlon(
        config="aircraft", data_dir=tmp_path, file_format="array_record"
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    source = open_decathlon("aircraft", tmp_path)
    assert source.classes == tuple(map(str, range(100)))
    for split, read in source.splits.items():
        found = sorted((example.label, example.image) for example in read())
        assert found == sorted(held[:2] for held in truth(folder, "aircraft", split).values())
        assert {example.image_id for example in read()} == {-1}


class Masked(tfds.core.GeneratorBasedBuilder):
    """Real digits with a mask beside each, as in caltech_birds2011, and a number."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent
    id_feature = staticmethod(lambda: tfds.features.Scalar(np.int32))

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
            "image_id": self.id_feature(),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index, example in enumerate(open_embedded("digits").splits["test"]()):
            picture = Image.fromarray(example.image).convert("RGB")
            mask = picture.convert("L").point(lambda value: 255 * (value > 128))
            encoded = {"image": io.BytesIO(), "segmentation_mask": io.BytesIO()}
            picture.save(encoded["image"], "PNG")
            mask.save(encoded["segmentation_mask"], "PNG")
            for stream in encoded.values():
                stream.seek(0)
            number = 7 * index if self.id_feature is Masked.id_feature else f"digit {index}"
            yield index, {**encoded, "label": example.label, "image_id": number}
            if index == 20:
                break


class Named(Masked):
    """The same with text for `image_id`."""

    id_feature = staticmethod(lambda: tfds.features.Text())


def test_the_image_is_told_from_its_mask_and_numbers_are_read(tmp_path):
    for builder in (Masked, Named):
        builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    digits = list(open_embedded("digits").splits["test"]())[:21]
    masked = list(open_tfds("masked", tmp_path).splits["train"]())
    assert {example.image_id for example in masked} == {7 * index for index in range(21)}
    for example in masked:
        original = digits[example.image_id // 7]
        assert example.label == original.label
        expected = Image.fromarray(original.image).convert("RGB")
        found = Image.open(io.BytesIO(example.image))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert {e.image_id for e in open_tfds("named", tmp_path).splits["train"]()} == {-1}
