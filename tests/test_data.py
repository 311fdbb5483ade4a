"""Sources, the decoded cache, batches and augmentation."""

import dataclasses
import importlib
import io
import shutil
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT, SHARED, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from radapt_jax.data import augment
from radapt_jax.data.domain import Domain
from radapt_jax.data.images import centre_crop, decode
from radapt_jax.data.load import load_domain
from radapt_jax.data.pixels import HostPixels
from radapt_jax.data.settle import USUAL
from radapt_jax.data.sources.embedded import DOMAINS, open_embedded
from radapt_jax.data.sources.folder import open_folder
from radapt_jax.data.sources.tfds import open_tfds
from radapt_jax.data.views import eval_views, train_positions, train_views
from radapt_jax.experiment.config import read

FOLDER = {"source": "folder", "size": 16, "resize": 20, "squash": False, "val_fraction": 0.25}


def pixels(data, split):
    """Return the images of a split, whole."""
    return [data.splits[split].image(position) for position in range(len(data.splits[split]))]


# Sources


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_embedded_domains_are_real_and_whole(name):
    source = open_embedded(name)
    for split in ("train", "test"):
        examples = list(source.splits[split]())
        assert {example.label for example in examples} == set(range(len(source.classes)))
        assert np.std([example.image.mean() for example in examples]) > 1
    first = [example.image for example in source.splits["train"]()]
    again = [example.image for example in source.splits["train"]()]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_no_embedded_test_image_is_a_training_image():
    for name in DOMAINS:
        source = open_embedded(name)
        seen = {example.image.tobytes() for example in source.splits["train"]()}
        test = [example.image.tobytes() for example in source.splits["test"]()]
        assert not seen & set(test), name


def make_tar(path, folder, prefix=""):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for file in sorted(folder.rglob("*.png")):
            tar.add(file, f"{prefix}{file.relative_to(folder)}")


def test_folder_tar_and_tar_by_split_are_the_same_domain(image_folder, tmp_path, cache_dir):
    make_tar(tmp_path / "one.tar", image_folder / "rocks", "some/folder/")
    (tmp_path / "split").mkdir()
    for split in ("train", "test"):
        make_tar(tmp_path / "split" / f"{split}.tar.gz", image_folder / "rocks" / split)
    folder = load_domain("rocks", {**FOLDER, "dir": image_folder}, {}, cache_dir)
    assert folder.domain.classes == ("brick", "grass", "gravel")
    assert {split: len(part) for split, part in folder.splits.items()} == {
        "train": 7,
        "test": 6,
        "val": 5,
    }
    for name in ("one", "split"):
        other = load_domain(name, {**FOLDER, "dir": tmp_path}, {}, cache_dir)
        assert other.domain.classes == folder.domain.classes
        for split in ("train", "val", "test"):
            for ours, theirs in zip(pixels(other, split), pixels(folder, split), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_changed_images_are_decoded_again(image_folder, tmp_path, cache_dir):
    make_tar(tmp_path / "a.tar", image_folder / "rocks")
    before = load_domain("a", {**FOLDER, "dir": tmp_path}, {}, cache_dir)
    (image_folder / "rocks2").mkdir(exist_ok=True)
    make_tar(tmp_path / "a.tar", image_folder)  # <name>/<split>/<class>/<image>
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        encoded = io.BytesIO()
        Image.new("RGB", (30, 30), (255, 0, 0)).save(encoded, "PNG")
        member = tarfile.TarInfo("rocks/train/gravel/new.png")
        member.size = encoded.tell()
        encoded.seek(0)
        tar.addfile(member, encoded)
    after = load_domain("a", {**FOLDER, "dir": tmp_path}, {}, cache_dir)
    whole = {split: len(before.splits[split]) for split in before.splits}
    assert sum(len(after.splits[split]) for split in after.splits) == sum(whole.values()) + 1


def test_missing_images_say_where_they_were_sought(image_folder, tmp_path, cache_dir):
    with pytest.raises(FileNotFoundError, match=r"nope.*rocks"):
        load_domain("nope", {**FOLDER, "dir": image_folder}, {}, cache_dir)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="no training images"):
        open_folder("empty", tmp_path)
    for split, label in (("train", "a"), ("test", "b")):
        (tmp_path / "uneven" / split / label).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "uneven" / split / label / "0.png")
    with pytest.raises(ValueError, match=r"without training images: \['b'\]"):
        open_folder("uneven", tmp_path)


def test_nothing_in_a_class_folder_is_left_out_silently(image_folder, tmp_path, caplog):
    for label in ("1", "01"):
        (tmp_path / "odd" / "train" / label).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "odd" / "train" / label / "0.pgm")
    (tmp_path / "odd" / "train" / "1" / "notes.txt").touch()
    with caplog.at_level("WARNING", "radapt_jax"):
        source = open_folder("odd", tmp_path)
    assert "1 entries are no images, such as notes.txt" in caplog.text
    assert source.classes == ("01", "1")
    (tmp_path / "odd" / "train" / "2").mkdir()
    with pytest.raises(ValueError, match="2 is a class without images"):
        open_folder("odd", tmp_path)


def layouts(tmp_path):
    """The folder `d` as each of the three layouts, by the name of the domain."""
    make_tar(tmp_path / "one.tar", tmp_path / "d", "a/leading.one/")
    (tmp_path / "split").mkdir()
    for split in (path.name for path in (tmp_path / "d").iterdir() if path.name[0] != "."):
        prefix = "rocks/" if split == "test" else f"{split}/"
        make_tar(tmp_path / "split" / f"{split}.tar", tmp_path / "d" / split, prefix)
    return "d", "one", "split"


def test_folders_are_read_at_every_depth_and_dot_names_are_not(image_folder, tmp_path):
    """As torchvision's ImageFolder recurses; the class is the first folder below the split."""
    shutil.copytree(image_folder / "rocks", tmp_path / "d")
    train = tmp_path / "d" / "train"
    (train / "brick" / "a" / "b").mkdir(parents=True)
    (train / "brick" / "3.png").rename(train / "brick" / "a" / "b" / "3.png")
    image = (train / "brick" / "0.png").read_bytes()
    for hidden in (".thumbs", "grass/.thumbs", "grass/deep/.x", "../.thumbs/grass"):
        (train / hidden).mkdir(parents=True)
        (train / hidden / "x.png").write_bytes(image)
    (train / "grass" / "._0.png").write_bytes(image)
    (train / ".ipynb_checkpoints").mkdir()
    for name in layouts(tmp_path):
        source = open_folder(name, tmp_path)
        assert source.classes == ("brick", "grass", "gravel"), name
        found = [(example.name, example.label) for example in source.splits["train"]()]
        assert len(found) == 12, name
        assert ("brick/a/b/3.png", 0) in found, name
        assert len(list(source.splits["test"]())) == 6, name


def test_links_that_lead_round_are_passed_over(image_folder, tmp_path, caplog):
    shutil.copytree(image_folder / "rocks", tmp_path / "d")
    brick = tmp_path / "d" / "train" / "brick"
    (tmp_path / "elsewhere").mkdir()
    (brick / "0.png").rename(tmp_path / "elsewhere" / "0.png")
    (brick / "there").symlink_to(tmp_path / "elsewhere")
    (brick / "again").symlink_to(tmp_path / "elsewhere")
    (brick / "self").symlink_to(brick)
    (brick / "up").symlink_to(tmp_path / "d")
    (tmp_path / "elsewhere" / "back").symlink_to(brick)
    found = [example.name for example in open_folder("d", tmp_path).splits["train"]()]
    assert len(found) == 12
    assert "brick/again/0.png" in found
    assert "brick/up leads to a folder that is read already" in caplog.text


def test_a_class_may_be_called_as_a_split_is(image_folder, tmp_path):
    for label, name in enumerate(("train", "test", "valid")):
        for split in ("train", "test"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            rocks = image_folder / "rocks" / split / ("brick", "grass", "gravel")[label]
            shutil.copytree(rocks, tmp_path / "d" / split / name / "deep")
    for name in layouts(tmp_path):
        source = open_folder(name, tmp_path)
        assert source.classes == ("test", "train", "valid"), name
        amounts = {split: len(list(read())) for split, read in source.splits.items()}
        assert amounts == {"train": 12, "test": 6}, name


def test_one_image_of_each_class_leaves_no_validation(tmp_path, cache_dir):
    for label in ("a", "b"):
        (tmp_path / "few" / "train" / label).mkdir(parents=True)
        Image.new("RGB", (20, 20), (label == "a" and "red") or "blue").save(
            tmp_path / "few" / "train" / label / "0.png"
        )
    data = load_domain("few", {**FOLDER, "dir": tmp_path}, {}, cache_dir)
    assert list(data.splits) == ["train"]
    assert len(data.splits["train"]) == 2


def test_wrong_facts_are_found_before_decoding(image_folder, tmp_path):
    for options in ({"size": 24}, {"crop": "center"}, {"adapter_decay": -1.0}):
        with pytest.raises(ValueError, match="rocks"):
            load_domain("rocks", {**FOLDER, "dir": image_folder}, options, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_decathlons_whole_domains_are_seen_at_72_pixels(
    image_folder, tmp_path, cache_dir, caplog
):
    (tmp_path / "svhn").symlink_to(image_folder / "rocks")
    defaults = {**FOLDER, "dir": tmp_path, "size": 64, "resize": 72, "adapter_decay": 5e-4}
    caplog.set_level("INFO", "radapt_jax")
    data = load_domain("svhn", defaults, {"facts": "svhn"}, cache_dir)
    assert (data.domain.size, data.domain.resize, data.domain.crop) == (72, 72, "centre")
    assert (data.domain.flip, data.domain.adapter_decay) == (False, 1e-4)
    line = next(line for line in caplog.messages if "the decathlon's" in line)
    for part in (
        "svhn: size 72, ",
        "crop 'centre', ",
        "flip False, ",
        "adapter_decay 0.0001 (",
        "size 64",
        "flip True",
        "adapter_decay 0.0005",
    ):
        assert part in line, part
    with pytest.raises(ValueError, match=r"found facts 'svnh'; expected .*'svhn'"):
        load_domain("svhn", defaults, {"facts": "svnh"}, cache_dir)


def test_what_is_asked_for_wins_over_the_decathlons_facts(image_folder, tmp_path, cache_dir):
    """A domain's name alone brings no facts; size, resize, decay and options stay where set."""
    (tmp_path / "svhn").symlink_to(image_folder / "rocks")
    defaults = {**FOLDER, "dir": tmp_path, "size": 32, "resize": 40, "adapter_decay": 0.0}

    def found(options, **changes):
        domain = load_domain("svhn", {**defaults, **changes}, options, cache_dir).domain
        return domain.size, domain.resize, domain.crop, domain.flip, domain.adapter_decay

    assert found({}) == (32, 40, "random", True, None)
    assert found({}, size=64, resize=72, adapter_decay=5e-4) == (64, 72, "random", True, None)
    assert found({"facts": "svhn"}) == (32, 40, "centre", False, None)
    assert found({"facts": "svhn"}, adapter_decay=5e-4) == (32, 40, "centre", False, 1e-4)
    options = {"facts": "svhn", "flip": True, "adapter_decay": 1e-3, "size": 24}
    assert found(options) == (24, 40, "centre", True, 1e-3)
    assert found({"crop": "centre"}) == (40, 40, "centre", True, None)  # all of it, as ever


def test_a_domain_is_trained_again_with_the_decay_that_is_asked_for(digits):
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module("configs.compress").get_config()
    sys.path.remove(str(ROOT))
    domain = dataclasses.replace(digits.domain, adapter_decay=1e-4)
    config.init_from = "runs/dense"
    assert read(config, 1).with_decay(domain).adapter_decay == 1e-4
    config.optim.decay.adapters = 0.0
    assert read(config, 1).with_decay(domain).adapter_decay is None
    config.options.digits = {"adapter_decay": 2e-3}
    assert read(config, 1).with_decay(domain).adapter_decay == 2e-3


def test_the_usual_values_are_the_configs():
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module("configs.base").get_config()
    sys.path.remove(str(ROOT))
    found = {**config.data, "adapter_decay": config.optim.decay.adapters}
    assert all(found.get(key, value) == value for key, value in USUAL.items())
    assert {key: getattr(Domain, key) for key in ("size", "resize", "crop", "flip")} == {
        key: value for key, value in USUAL.items() if key != "adapter_decay"
    }


def test_an_unreadable_image_is_named(image_folder, tmp_path, cache_dir):
    folder = tmp_path / "broken" / "train" / "a"
    folder.mkdir(parents=True)
    good = next((image_folder / "rocks" / "train" / "brick").iterdir()).read_bytes()
    (folder / "good.png").write_bytes(good)
    (folder / "short.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"short\.png"):
        load_domain("broken", {**FOLDER, "dir": tmp_path}, {}, cache_dir)
    assert not list(Path(cache_dir).glob("broken*"))


def test_options_of_a_domain(image_folder, cache_dir):
    options = {"flip": False, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "size": 8}
    data = load_domain("rocks", {**FOLDER, "dir": image_folder}, options, cache_dir)
    assert (data.domain.flip, data.domain.mean, data.domain.size) == (False, (0.5,) * 3, 8)
    with pytest.raises(ValueError, match="did you mean 'flip'"):
        load_domain("rocks", {**FOLDER, "dir": image_folder}, {"flipp": True}, cache_dir)


class Sevens(tfds.core.GeneratorBasedBuilder):
    """Real digits as a tensorflow-datasets dataset that yields encoded bytes."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["zero", "one", "two"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    unlabelled = False

    def _generate_examples(self, split):
        for index, example in enumerate(open_embedded("digits").splits[split]()):
            if example.label < 3:
                encoded = io.BytesIO()
                Image.fromarray(example.image).convert("RGB").save(encoded, "PNG")
                encoded.seek(0)
                hidden = self.unlabelled and split == "test"
                yield index, {"image": encoded, "label": -1 if hidden else example.label}


class Challenge(Sevens):
    """The same with test labels of -1, as the Visual Decathlon's."""

    unlabelled = True


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    for builder in (Sevens, Challenge):
        builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_prepared_datasets_are_read_without_tensorflow(prepared, digits, cache_dir):
    defaults = {**SMALL, "source": "tfds", "dir": prepared}
    data = load_domain("sevens", defaults, {"crop": "centre", "flip": False}, cache_dir)
    assert data.domain.classes == ("zero", "one", "two")
    ours = {image.tobytes() for image in pixels(data, "test")}
    few = np.flatnonzero(digits.splits["test"].targets < 3)
    theirs = {digits.splits["test"].image(position).tobytes() for position in few}
    assert ours == theirs
    renamed = load_domain("other", defaults, {"dataset": "sevens:1.0.0"}, cache_dir)
    assert len(renamed.splits["test"]) == len(few)


def test_a_test_split_without_labels_is_left_out(prepared, cache_dir):
    data = load_domain("challenge", {**SMALL, "source": "tfds", "dir": prepared}, {}, cache_dir)
    assert sorted(data.splits) == ["train", "val"]


def test_a_dataset_that_is_not_prepared_is_an_error_at_once(prepared):
    before = time.monotonic()
    with pytest.raises(FileNotFoundError, match="Prepare it first"):
        open_tfds("cifar100", prepared)
    with pytest.raises(FileNotFoundError, match=r"sevens/2\.0\.0.*found 1\.0\.0"):
        open_tfds("sevens", prepared, dataset="sevens:2.0.0")
    assert time.monotonic() - before < 30  # tfds itself would retry for minutes


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="decathlon_like is not here")
@pytest.mark.parametrize(
    ("name", "classes", "train", "test"),
    [("rsscn7", 7, 1400, 1400), ("daimler_ped", 2, 4000, 2000), ("gtsrb", 43, 4300, 2150)],
)
def test_decathlon_like_is_read_in_place(name, classes, train, test, cache_dir):
    defaults = {**FOLDER, "dir": SHARED / "data" / "decathlon_like", "val_fraction": 0.1}
    data = load_domain(name, defaults, {}, cache_dir)
    assert data.domain.num_classes == classes
    assert not data.domain.classes[0].isdecimal()  # names come from meta.json
    assert len(data.splits["train"]) + len(data.splits["val"]) == train
    assert len(data.splits["test"]) == test
    if name == "daimler_ped":  # 18x36 pixels: whole, not a centre square
        assert (data.splits["test"].extents == (40, 20)).all()


# Decoding, cache and statistics


def test_decode_keeps_the_aspect_ratio_and_the_whole_image():
    picture = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (60, 1)))
    assert decode(picture, 30).shape == (30, 45, 3)
    assert decode(picture, 30, squash=True).shape == (30, 30, 3)
    assert decode(picture.rotate(90, expand=True), 60).shape == (90, 60, 3)
    assert decode(picture.resize((360, 60)), 20).shape == (20, 120, 3)
    assert decode(picture.resize((600, 60)), 20).shape == (20, 160, 3)  # at most 8:1
    assert decode(picture.resize((2, 4000)), 20).shape == (160, 20, 3)
    assert decode(picture.resize((600, 60)), 20, squash=True).shape == (20, 20, 3)
    np.testing.assert_array_equal(decode(picture, 60)[0, :, 0], np.arange(90))


def test_decode_turns_photographs_upright_from_file_and_from_pillow():
    encoded = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (60, 1))).save(encoded, "PNG", exif=exif)
    upright = decode(encoded.getvalue(), 60)
    assert upright.shape == (90, 60, 3)
    np.testing.assert_array_equal(decode(Image.open(encoded), 60), upright)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I", "I;16"])
def test_decode_takes_every_common_mode(mode, surface_images):
    grey = Image.fromarray(surface_images[0][0]).convert("L")
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "I":  # 8 bits in wide pixels
        stored = grey.convert("I")
    else:
        stored = grey.convert("RGB").convert(mode)
    encoded = io.BytesIO()
    stored.save(encoded, "TIFF" if mode in ("CMYK", "I") else "PNG")
    found = decode(encoded.getvalue(), 40)
    assert found.shape == (40, 40, 3)
    limit = 130 if mode == "1" else 24 if mode == "P" else 4
    assert np.abs(found[..., 0].astype(int) - np.asarray(grey)).mean() < limit


def test_statistics_are_those_of_the_training_pixels(faces):
    images = np.stack(pixels(faces, "train"))
    np.testing.assert_allclose(faces.domain.mean, images.mean((0, 1, 2)) / 255, rtol=1e-9)
    np.testing.assert_allclose(faces.domain.std, images.std((0, 1, 2)) / 255, rtol=1e-9)


def test_images_of_many_shapes_keep_their_own_pixels(image_folder, cache_dir):
    data = load_domain("rocks", {**FOLDER, "dir": image_folder}, {}, cache_dir)
    images = pixels(data, "test")
    assert len({image.shape for image in images}) > 1
    files = sorted((image_folder / "rocks" / "test").glob("*/*"))
    for image, file in zip(images, files, strict=True):
        np.testing.assert_array_equal(image, decode(file, 20))


def test_a_damaged_cache_is_an_error(faces, cache_dir):
    files = list(Path(cache_dir).glob("faces-test-20-*/pixels.u8"))
    assert files
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-5])
    try:
        with pytest.raises(ValueError, match=r"damaged.*Delete the folder"):
            load_domain("faces", {**SMALL, "resize": 20}, {}, cache_dir)
    finally:
        files[0].write_bytes(whole)


# Splits and batches


@pytest.mark.parametrize("how", ["random", "blocks"])
def test_validation_is_cut_from_every_class(how, cache_dir):
    data = load_domain("digits", SMALL, {"val": how, "val_fraction": 0.2}, cache_dir)
    train, val = data.splits["train"], data.splits["val"]
    assert not set(train.index) & set(val.index)
    assert len(train) + len(val) == 1297
    for label in range(10):
        share = (val.targets == label).sum() / (np.r_[val.targets, train.targets] == label).sum()
        assert share == pytest.approx(0.2, abs=0.01 if how == "blocks" else 0.1)
        if how == "blocks":
            first = val.index[val.targets == label].min()
            assert first > train.index[train.targets == label].max()


@given(
    length=st.integers(1, 50),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 3),
    epochs=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_every_epoch_sees_every_image_once(length, batch_size, seed, epochs):
    steps = -(-epochs * length // batch_size)
    stream = [train_positions(length, batch_size, seed, step) for step in range(steps)]
    assert all(len(part) == batch_size for part in stream)
    whole = np.concatenate(stream)[: epochs * length].reshape(epochs, length)
    assert (np.sort(whole, 1) == np.arange(length)).all()
    np.testing.assert_array_equal(train_positions(length, batch_size, seed, steps - 1), stream[-1])


def test_order_depends_on_seed_and_epoch():
    first, second = (train_positions(100, 100, 0, step) for step in (0, 1))
    other = train_positions(100, 100, 1, 0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


# Views


def test_evaluation_crop_is_preprocess_crop(faces):
    split = faces.splits["test"]
    views = eval_views(split, faces.domain, np.arange(len(split)))
    found = HostPixels(split, 16).cut(views)["image"]
    for image, cropped in zip(pixels(faces, "test"), found, strict=True):
        np.testing.assert_array_equal(centre_crop(image, 16), cropped)


def test_crops_reach_the_whole_image_and_flip_half(image_folder, cache_dir):
    """Every random crop is a window of its own image, and all of them are reached."""
    data = load_domain("rocks", {**FOLDER, "dir": image_folder}, {}, cache_dir)
    split = data.splits["train"].subset(np.array([0]))
    views = train_views(split, data.domain, 400, seed=0, step=0)
    found = HostPixels(split, 16).cut(views)["image"]
    image = split.image(0)
    windows = {
        image[top : top + 16, left : left + 16].tobytes()
        for top in range(image.shape[0] - 15)
        for left in range(image.shape[1] - 15)
    }
    assert {window.tobytes() for window in found} == windows
    assert 150 < views.flips.sum() < 250


def test_the_network_input_is_mirrored_and_normalised(faces):
    images = np.stack(pixels(faces, "test")[:2])[:, :16, :16]
    batch = {"image": images, "flip": np.array([False, True])}
    found = augment.network_input(batch, faces.domain.mean, faces.domain.std)
    expected = np.stack([images[0], images[1][:, ::-1]]) / 255
    expected = (expected - np.array(faces.domain.mean)) / np.array(faces.domain.std)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_views_depend_on_seed_and_step_alone(faces):
    split = faces.splits["train"]
    first, same, other, later = (
        train_views(split, faces.domain, 32, seed, step)
        for seed, step in ((0, 5), (0, 5), (1, 5), (0, 6))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first.starts, other.starts)
    assert not np.array_equal(first.starts, later.starts)


@pytest.mark.parametrize(("crops", "flip", "views"), [(1, True, 1), (5, True, 5), (10, False, 5)])
def test_views_of_an_evaluation(crops, flip, views, faces):
    domain = dataclasses.replace(faces.domain, flip=flip)
    found = eval_views(faces.splits["test"], domain, np.arange(3), crops)
    np.testing.assert_array_equal(found.positions, np.repeat(np.arange(3), views))
    assert len({tuple(start) for start in found.starts}) == views
    assert found.starts.min() >= 0
    assert found.starts.max() <= 4
    assert not found.flips.any()
