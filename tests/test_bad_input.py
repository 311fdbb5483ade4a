"""Bad input by message: every row is one mistake, who meets it, and what is said.

A row of `REFUSED` ends in an error that says what was found, what was expected or what to do. A row
of `TAKEN` is read all the same, as documented, and what comes of it is right.
"""

import dataclasses
import importlib
import io
import json
import os
import sys
import tarfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT
from families import empty_family, member_of
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from radapt_jax import Domain, Family, LowRank, Parallel, ResNet26, Shared
from radapt_jax.data import images as data_images
from radapt_jax.data.cache import load_split
from radapt_jax.data.domain import Resizing, check_name
from radapt_jax.data.images import decode
from radapt_jax.data.load import load_domain
from radapt_jax.data.sources.source import Example, Source
from radapt_jax.data.sources.tfds import open_tfds
from radapt_jax.data.spec import DataSpec
from radapt_jax.experiment import config as experiment_config
from radapt_jax.experiment.resume import flat
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.utils.files import check_writable

some = hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def small_member(data, seed=1):
    return member_of(data, "none", seed, width=1 / 32)


def refusal(call):
    """Return what the ValueError of a call says, or None where there is none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


# Images


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


GREY = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))  # a ramp, 32 x 32
COLOURS = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
PHOTO = Image.fromarray(COLOURS)


def wide(values):
    return Image.fromarray(np.asarray(values))


def with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PHOTO, exif=exif)


def animated(kind):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def transparent(mode):
    picture = PHOTO.convert("RGBA")
    picture.putalpha(0)
    return picture.convert(mode)


BAD_IMAGES = {
    "no bytes": (b"", "expected one of BMP, GIF"),
    "no image": (b"%PDF-1.4 of no use", "expected one of BMP, GIF"),
    "a format that starts a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "expected one of BMP"),
    "truncated PNG": (encoded(PHOTO)[:70], "cannot be read as an image"),
    "truncated JPEG": (encoded(PHOTO, "JPEG")[:-40], "truncated"),
    "truncated TIFF": (encoded(PHOTO, "TIFF")[:-4], "cannot be read as an image"),
    "a bomb": (encoded(Image.new("1", (9000, 8000))), r"9000 x 8000 pixels; expected 1 to 67,1"),
    "a larger bomb": (encoded(Image.new("1", (20000, 10000))), r"200000000 pixels"),
    "no pixels": (Image.new("RGB", (0, 9)), "0 x 9 pixels"),
    "an empty array": (np.zeros((0, 9, 3), np.uint8), "at least one pixel"),
    "float pixels": (wide(np.ones((9, 9), np.float32)), "floats of unknown range"),
    "a float array": (np.ones((9, 9, 3)), r"float64 \(9, 9, 3\); expected uint8"),
    "an array of five channels": (np.ones((9, 9, 5), np.uint8), "expected uint8"),
    "32 bits": (encoded(wide(np.full((9, 9), 1 << 20, np.int32)), "TIFF"), "8 or 16 bits"),
    "negative": (encoded(wide(np.full((9, 9), -1, np.int32)), "TIFF"), "from -1 to -1; expected"),
    "a folder": ("/", "/ cannot be read as an image: .*directory"),
    "nothing": (None, "found NoneType; expected a path"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_is_refused(case):
    image, message = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=message):
        decode(image, 16)


def test_an_image_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(data_images, "MAX_BYTES", 1000)
    (tmp_path / "large.bmp").write_bytes(encoded(PHOTO, "BMP"))
    for image in (tmp_path / "large.bmp", encoded(PHOTO, "BMP")):
        with pytest.raises(ValueError, match="more than 1,000 bytes; store it smaller"):
            decode(image, 16)


RED = np.full((9, 9, 3), (255, 0, 0), np.uint8)
AS_GREY = np.repeat(GREY[..., None], 3, axis=-1)
TAKEN_IMAGES = {  # what is stored, and the pixels that come of it
    "1 x 1 is enlarged": (Image.fromarray(RED[:1, :1]), RED),
    "grey": (encoded(Image.fromarray(GREY)), AS_GREY),
    "grey with alpha": (encoded(Image.fromarray(GREY).convert("LA")), AS_GREY),
    "palette": (encoded(Image.fromarray(GREY).convert("P")), AS_GREY),
    "palette with a transparent colour": (
        encoded(Image.fromarray(GREY).convert("P"), transparency=3),
        AS_GREY,
    ),
    "an array with transparency": (np.asarray(transparent("RGBA")), COLOURS),
    "transparency is left out": (encoded(transparent("RGBA")), COLOURS),
    "16 bits of grey keep the high byte": (encoded(wide(GREY.astype(np.uint16) * 257)), AS_GREY),
    "16 bits, TIFF": (encoded(wide(GREY.astype(np.uint16) * 257), "TIFF"), AS_GREY),
    "16 bits, PGM": (encoded(wide(GREY.astype(np.uint16) * 257), "PPM"), AS_GREY),
    "16 bits, dark": (encoded(wide(np.full((9, 9), 200, np.uint16))), np.zeros_like(RED)),
    "16 bits, dark, PGM": (
        encoded(wide(np.full((9, 9), 200, np.uint16)), "PPM"),
        np.zeros_like(RED),
    ),
    "8 bits in 32": (encoded(wide(GREY.astype(np.int32)), "TIFF"), AS_GREY),
    "CMYK": (encoded(PHOTO.convert("CMYK"), "TIFF"), COLOURS),
    "black and white": (encoded(Image.fromarray(GREY > 99)), np.where(AS_GREY > 99, 255, 0)),
    "a turned photograph": (with_exif(6), np.rot90(COLOURS, -1)),
    "a mirrored photograph": (with_exif(2), COLOURS[:, ::-1]),
    "first frame of a GIF": (animated("GIF"), RED),
    "first frame of a PNG": (animated("PNG"), RED),
    "first frame of a TIFF": (animated("TIFF"), RED),
}


@pytest.mark.parametrize("case", TAKEN_IMAGES)
def test_an_image_is_taken(case):
    image, expected = TAKEN_IMAGES[case]
    np.testing.assert_array_equal(decode(image, len(expected)), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pillow's, of metadata that is cut
@some
@given(data=st.binary(max_size=400), head=st.sampled_from([b"", b"BM", b"GIF89a", b"\x89PNG\r\n",
       b"\xff\xd8\xff\xe0", b"P5 9 9 255\n", b"II*\x00", b"RIFF\x20\0\0\0WEBP"]))  # fmt: skip
def test_any_bytes_as_an_image(data, head):
    said = refusal(lambda: decode(head + data, 16))
    assert said is None or "cannot be read as an image" in said


FILES = {
    kind: encoded(PHOTO, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pillow's, of metadata that is cut
@some
@given(kind=st.sampled_from(sorted(FILES)), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_image_is_refused_or_whole(kind, share):
    whole = FILES[kind]
    try:
        found = decode(whole[: int(share * len(whole))], 32)
    except ValueError:
        return
    np.testing.assert_array_equal(found, decode(whole, 32))


# Folders, tar files and caches


def paint(folder, *files):
    """Write a small picture to every file."""
    for number, file in enumerate(files):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (20 * number % 256, 90, 30)).save(path, "PNG")


def tar_of(path, *members, end=None):
    """Write a tar file of names with contents, or with types such as links, cut at `end`."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if len(content) > 1:  # types have one byte
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content, str(path)
                tar.addfile(info)
    if end is not None:
        path.write_bytes(path.read_bytes()[:end])


IMAGE = encoded(Image.new("RGB", (12, 12), "red"))
PAIR = (("train/a/0.png", IMAGE), ("train/b/0.png", IMAGE))


def meta(text):
    def make(root):
        paint(root, "d/train/0/0.png", "d/train/1/0.png")
        (root / "d" / "meta.json").write_text(text)

    return make


def broken(root, share=1):
    paint(root, *(f"d/train/a/{number}.png" for number in range(4)))
    for number in range(share):
        (root / "d" / "train" / "a" / f"{number}.png").write_bytes(b"no image")


REFUSED_FOLDERS = {
    "nothing there": (lambda root: None, "found neither .*--config.data.dir"),
    "no training images": (lambda root: paint(root, "d/test/a/0.png"), "no training images"),
    "images in no class": (lambda root: paint(root, "d/train/0.png"), "no training images"),
    "an empty class": (
        lambda root: [paint(root, "d/train/a/0.png"), (root / "d/train/b").mkdir()],
        "b is a class without images",
    ),
    "a class only in test": (
        lambda root: paint(root, "d/train/a/0.png", "d/test/b/0.png"),
        r"'test' has classes without training images: \['b'\]",
    ),
    "classes differ between splits": (
        lambda root: paint(root, "d/train/cat/0.png", "d/val/Cat/0.png"),
        r"'val' has classes without training images: \['Cat'\]",
    ),
    "unreadable, too many": (broken, r"1 of 4 images of train cannot be read.*max_unreadable"),
    "unreadable, all": (
        lambda root: broken(root, 4),
        "none of 4 images .*; repair.*0.png",
    ),
    "class names that are no JSON": (meta("{"), "meta.json cannot be read.*class_names"),
    "class names in no object": (meta("[]"), "meta.json cannot be read"),
    "class names in no list": (meta('{"class_names": 5}'), "class_names is 5.*repair or remove"),
    "no tar file": (
        lambda root: (root / "d.tar").write_bytes(b"nothing of the kind"),
        "d.tar cannot be read.*fetch it again",
    ),
    "an empty tar file": (lambda root: (root / "d.tar").touch(), "d.tar cannot be read"),
    "a tar file cut in an image": (
        lambda root: tar_of(root / "d.tar", *PAIR, end=1600),
        "d.tar cannot be read",
    ),
    "a tar file cut between images": (
        lambda root: tar_of(root / "d.tar", *PAIR, end=1024),
        "d.tar cannot be read: it has no end mark",
    ),
    "a cut tar.gz": (
        lambda root: tar_of(root / "d.tar.gz", *PAIR, end=150),
        "d.tar.gz cannot be read",
    ),
    "an image twice in a tar file": (
        lambda root: tar_of(root / "d.tar", *PAIR, PAIR[0]),
        "holds train/a/0.png more than once",
    ),
    "a tar file of links": (
        lambda root: tar_of(root / "d.tar", ("train/a/0.png", tarfile.SYMTYPE)),
        "no training images",
    ),
}
DEFAULTS = {"source": "folder", "size": 8, "resize": 8, "squash": False, "val_fraction": 0.25}


def load(root, cache, **changes):
    return load_domain("d", {**DEFAULTS, "dir": root, **changes}, {}, cache)


@pytest.mark.parametrize("case", REFUSED_FOLDERS)
def test_a_folder_is_refused(case, tmp_path):
    make, message = REFUSED_FOLDERS[case]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}"):
        load(tmp_path / "data", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*")), "nothing half-made is kept"


TAKEN_FOLDERS = {  # what is there, the images by split, and what is logged
    "one image in all": (lambda root: paint(root, "d/train/a/0.png"), {"train": 1}, ""),
    "one image of a class": (
        lambda root: paint(root, "d/train/a/0.png", "d/train/b/0.png", "d/train/b/1.png"),
        {"train": 2, "val": 1},
        "",
    ),
    "files that are no images": (
        lambda root: [paint(root, "d/train/a/0.png"), (root / "d/train/a/x.txt").touch()],
        {"train": 1},
        "1 entries are no images, such as x.txt",
    ),
    "unreadable, few enough": (
        lambda root: broken(root, 2),
        {"train": 1, "val": 1},
        "2 images of train cannot be read, and are left out",
    ),
    "a class of which nothing can be read": (
        lambda root: [
            paint(root, *(f"d/train/{name}/0.png" for name in "abc")),
            (root / "d/train/b/0.png").write_bytes(b""),
        ],
        {"train": 2},
        "1 of 3 classes have no training images that can be read, such as 'b'",
    ),
}


@pytest.mark.parametrize("case", TAKEN_FOLDERS)
def test_a_folder_is_taken(case, tmp_path, caplog):
    make, amounts, said = TAKEN_FOLDERS[case]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    with caplog.at_level("WARNING", "radapt_jax"):
        data = load(tmp_path / "data", tmp_path / "cache", max_unreadable=0.5)
    assert {split: len(part) for split, part in data.splits.items()} == amounts
    assert said in caplog.text


def test_most_of_a_class_never_goes_to_validation(tmp_path):
    paint(tmp_path / "data", *(f"d/train/a/{number}.png" for number in range(4)))
    data = load(tmp_path / "data", tmp_path / "cache", val_fraction=0.99)
    assert (len(data.splits["train"]), len(data.splits["val"])) == (1, 3)


def test_names_that_are_no_text_are_taken(tmp_path):
    """File names on disk are bytes."""
    folder = os.fsencode(tmp_path / "d" / "train") + b"/\xff\xfe"
    os.makedirs(folder)
    with open(folder + b"/0.png", "wb") as file:
        file.write(IMAGE)
    assert len(load(tmp_path, tmp_path / "cache").splits["train"]) == 1


@some
@given(end=st.integers(0, 3 * 1024 + 100))
@example(end=1024)
@example(end=2048)
def test_a_truncated_tar_file_is_refused_or_whole(end, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "cut"
    root.mkdir(exist_ok=True)
    tar_of(root / "d.tar", *PAIR, end=end)
    found = []
    said = refusal(lambda: found.append(load(root, root / "cache", val_fraction=0.0)))
    if said is None:
        assert len(found[0].splits["train"]) == 2
    else:
        assert "d.tar cannot be read" in said


def source_of(*labels, classes=("a", "b")):
    read = [Example(f"image {number}", label, GREY) for number, label in enumerate(labels)]
    return Source("d", classes, {"train": lambda: read}, str(labels))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "image 1: found label 2; expected 0 to 1"),
        ([0, -2], "found label -2"),
        ([0, -1], "1 of 2 images of train have the label -1"),
        ([], "holds no image"),
    ],
)
def test_labels_are_refused(labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_split(source_of(*labels), "train", Resizing(8), tmp_path)


@pytest.mark.parametrize("name", ["done.json", "index.npz", "pixels.u8"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04."])
def test_a_damaged_cache_is_refused(name, content, tmp_path):
    load_split(source_of(0, 1), "train", Resizing(8), tmp_path)
    (folder,) = tmp_path.glob("[!.]*")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged: .*Delete the folder"):
        load_split(source_of(0, 1), "train", Resizing(8), tmp_path)


def test_damaged_metadata_of_a_prepared_dataset(tmp_path):
    folder = tmp_path / "x" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"x/1\.0\.0 cannot be read.*prepare it again"):
        open_tfds("x", tmp_path)


# Names


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "/x", "a\\b", ".hidden", "a.", "a b", "a\n", "a\0", "ä", "a:b",
     "x" * 101, "\x1b[0m", 7, None],
)  # fmt: skip
def test_a_domain_name_is_refused(name, digits, tmp_path):
    for call in (
        lambda: check_name(name),
        lambda: dataclasses.replace(digits.domain, name=name),
        lambda: DataSpec(name, "folder"),
        lambda: checkpoint.load_member(tmp_path, name),
        lambda: empty_family(1 / 32).add(name, small_member(digits)),
    ):
        with pytest.raises(ValueError, match="found domain name"):
            call()


@some
@given(name=st.text(max_size=120) | st.from_regex(r"[\w./~-]{1,9}", fullmatch=True))
def test_any_text_as_a_domain_name(name, tmp_path_factory):
    """Either it is refused, or it makes a folder right where it is to be."""
    folder = tmp_path_factory.getbasetemp() / "names"
    if (said := refusal(lambda: check_name(name))) is not None:
        assert repr(name) in said
        return
    made = folder / f".{name}-train+val-72-0123456789abcdef.new"
    made.mkdir(parents=True, exist_ok=True)
    assert made.resolve().parent == folder.resolve()


def test_a_folder_with_another_domains_card(digits, tmp_path):
    family = empty_family(1 / 32)
    family.add("digits", small_member(digits))
    family.save(tmp_path)
    (tmp_path / "domains" / "digits").rename(tmp_path / "domains" / "other")
    with pytest.raises(ValueError, match="holds domain 'digits'; expected 'other'"):
        checkpoint.load_member(tmp_path, "other")


# Configs

INIT = "runs/none"  # where there is nothing
REFUSED_CONFIGS = {
    "no domain": ({"domains": " , "}, "domains is empty"),
    "a domain twice": ({"domains": "a,b,a"}, "names a domain twice: .*'dataset'"),
    "domains apart in case alone": (
        {"domains": "svhn,SVHN"},
        "'svhn' and 'SVHN'; they would share",
    ),
    "a name with a slash": ({"domains": "a/b"}, "found domain name 'a/b'; expected letters"),
    "a name that climbs": ({"domains": "a,.."}, r"found domain name '\.\.'"),
    "no method": ({"method": ""}, "method is empty"),
    "nothing to start from": ({"init_from": ""}, "init_from is empty"),
    "no shared weights there": ({}, "found no shared weights at .*runs/none"),
    "unknown start": ({"start": "middle"}, r"start 'middle'; expected one of \['backbone'"),
    "unknown export": ({"export": "first"}, "export 'first'"),
    "unknown source": ({"data.source": "web"}, "data.source 'web'; expected one of"),
    "unknown stage": ({"adapter.stages": "early,last"}, r"stages \['last'\]; expected some of"),
    "unknown convolution": ({"adapter.convs": "third"}, "third"),
    "unknown adapter": ({"adapter.kind": "magic"}, "magic"),
    "unknown initialiser": ({"adapter.options": {"init": "ones"}}, "ones"),
    "unknown backbone": ({"backbone.name": "vgg"}, "vgg"),
    "unknown dtype": ({"backbone.dtype": "float16"}, "float16"),
    "unknown schedule": ({"optim.schedule": "linear"}, "'linear'; expected 'steps'"),
    "unknown compression": ({"compress.kind": "zip"}, "zip"),
    "unknown rank rule": ({"compress.ranks": "half"}, "half"),
    "width without channels": ({"backbone.width": 0.01}, "multiple of 1/32"),
    "no width": ({"backbone.width": 0.0}, "width 0.0"),
    "negative rate": (
        {"optim.learning_rate": -0.1},
        "rate -0.1; expected a number",
    ),
    "NaN rate": ({"optim.learning_rate": float("nan")}, "learning_rate nan"),
    "infinite rate": ({"optim.learning_rate": float("inf")}, "learning_rate inf"),
    "no such optimiser": ({"optim.name": "rmsprop"}, r"name 'rmsprop'; expected one of \['sgd'"),
    "no optimiser of adapters": ({"optim.adapter_optimizer": None}, "adapter_optimizer None"),
    "a negative rate of adapters": ({"optim.adapter_rate": -0.1}, "adapter_rate -0.1"),
    "momentum of 1": ({"optim.momentum": 1.0}, r"momentum 1.0; expected a number in \[0, 1\)"),
    "drops to nothing": ({"optim.drop_by": 0.0}, "drop_by 0.0"),
    "drops below nothing": ({"optim.drop_by": -0.1}, "drop_by -0.1"),
    "drops after the end": ({"optim.drop_at": (80.0,)}, "drop_at"),
    "warmup longer than the run": ({"optim.warmup": 5.0}, "warmup 5.0"),
    "negative decay": ({"optim.decay.head": -1.0}, "decay.head -1.0"),
    "NaN decay": ({"optim.decay.norms": float("nan")}, "decay.norms nan"),
    "no batch": ({"train.batch_size": 0}, "batch_size 0; expected a whole number from 1"),
    "batch that devices cannot share": ({"train.batch_size": 12}, "multiple of the 8 devices"),
    "negative epochs": ({"train.epochs": -1.0}, "epochs -1.0"),
    "endless epochs": ({"train.epochs": float("inf")}, "epochs inf"),
    "no epochs": ({"train.epochs": 0.0}, "steps 0 and epochs 0.0; expected a positive"),
    "negative steps": ({"train.steps": -1}, "steps -1"),
    "no evaluations": ({"train.evals": 0}, "evals 0"),
    "no logs": ({"train.log_every": 0}, "log_every 0"),
    "smoothing of 1": ({"train.label_smoothing": 1.0}, "label_smoothing 1.0"),
    "negative dropout": (
        {"adapter.kind": "parallel", "adapter.options": {"dropout": (-0.5, 0.0)}},
        "dropout .-0.5, 0.0",
    ),
    "dropout of 1": (
        {"adapter.kind": "parallel", "adapter.options": {"dropout": (0.0, 1.0)}},
        "dropout .0.0, 1.0",
    ),
    "dropout without parallel adapters": (
        {"adapter.kind": "series", "adapter.options": {"dropout": (0.5, 0.0)}},
        "options .'dropout'. for series adapters; expected some of",
    ),
    "negative seed": ({"seed": -1}, "seed -1"),
    "validation of everything": ({"data.val_fraction": 1.0}, "val_fraction 1.0"),
    "negative validation": ({"data.val_fraction": -0.1}, "val_fraction -0.1"),
    "no training images": ({"train_fraction": 0.0}, "train_fraction 0.0"),
    "a negative limit": ({"images_per_class": -1}, "images_per_class -1"),
    "all unreadable and more": ({"data.max_unreadable": 1.5}, "max_unreadable 1.5"),
    "training on test": ({"data.train_on": "test"}, "train_on 'test'"),
    "size that cannot be halved": ({"data.size": 30}, "data.size 30; expected .* multiple of 8"),
    "no size": ({"data.size": 0}, "data.size 0"),
    "share above 1": ({"compress.share": 1.5}, "compress.share 1.5"),
    "negative budget": ({"compress.budget": -1}, "compress.budget -1"),
    "text for a number": ({"train.batch_size": "many"}, "batch_size 'many'; expected a whole"),
    "text of a number": ({"train.epochs": "12.0"}, "epochs '12.0'; expected a number"),
    "a fraction for an integer": ({"train.evals": 2.5}, "evals 2.5; expected a whole number"),
    "a flag for a number": ({"train.batch_size": True}, "batch_size True"),
    "text for a flag": ({"data.squash": "no"}, "squash 'no'; expected True or False"),
    "a number for text": ({"domains": 7}, "config.domains 7; expected text"),
    "a number for several": ({"optim.drop_at": 0.5}, "drop_at 0.5; expected several"),
    "nothing for a number": ({"optim.momentum": None}, "momentum None"),
    "an entry that is gone": ({"optim.momentum": KeyError}, "config has no optim.momentum"),
    "options that are none": ({"options.digits": "flip"}, "options.digits 'flip'; expected a dict"),
    "an unknown option": ({"options.digits": {"flipp": 1}}, "did you mean 'flip'"),
    "text for an option's flag": ({"options.digits": {"flip": "no"}}, "flip 'no'; expected True"),
    "a path for a size": ({"options.digits": {"resize": "../../x"}}, "resize '../../x'; expected"),
    "a size as a fraction": ({"options.digits": {"size": 8.0}}, "size 8.0; expected a whole"),
    "resize below size": ({"options.digits": {"resize": 8, "size": 16}}, "resize 8 below size 16"),
    "two means": ({"options.digits": {"mean": (0.5, 0.5)}}, "mean .*expected 3, each"),
    "no spread": ({"options.digits": {"std": (0.1, 0.0, 0.1)}}, "std .*expected 3, each"),
    "NaN option": ({"options.digits": {"adapter_decay": float("nan")}}, "adapter_decay nan"),
    "unknown crop": ({"options.digits": {"crop": "center"}}, "crop 'center'; expected one of"),
}


def config_with(cache, init_from, changes):
    """The quickstart's parallel recipe in small, with changes of any type."""
    sys.path.insert(0, str(ROOT))
    config = importlib.import_module("configs.quickstart").get_config("parallel")
    sys.path.remove(str(ROOT))
    plain = flat(config.to_dict())
    plain |= {"domains": "digits", "init_from": init_from, "data.cache": str(cache)}
    plain |= {"data.size": 8, "data.resize": 8, "backbone.width": 1 / 32, "train.steps": 0}
    plain = {key: value for key, value in plain.items() if not key.startswith("options")}
    tree = {"options": {}}
    for key, value in {**plain, **changes}.items():
        if value is not KeyError:
            *above, last = key.split(".")
            place = tree
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
    return experiment_config.ConfigDict(tree, convert_dict=True)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained")
    empty_family(1 / 32).save(workdir)
    return workdir


@pytest.mark.parametrize("case", REFUSED_CONFIGS)
def test_a_config_is_refused(case, pretrained, tmp_path):
    """Before anything is decoded, trained or written."""
    changes, message = REFUSED_CONFIGS[case]
    init_from = INIT if case == "no shared weights there" else str(pretrained)
    config = config_with(tmp_path / "cache", init_from, changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


NOWHERE = {  # as root too, whom permissions do not bind
    "a file": lambda root: root / "file",
    "a path under a file": lambda root: root / "file" / "deep" / "run",
    "a folder that takes no files": lambda root: experiment_config.Path("/proc/radapt_jax/run"),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_a_workdir_that_cannot_be_written_to(case, pretrained, tmp_path):
    (tmp_path / "file").touch()
    config = config_with(tmp_path / "cache", str(pretrained), {})
    with pytest.raises(OSError, match=r"cannot be written to .*--workdir"):
        train_and_evaluate(config, NOWHERE[case](tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("case", NOWHERE)
def test_a_cache_that_cannot_be_written_to(case, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written to .*config\.data\.cache.*--cache"):
        load_split(source_of(0), "train", Resizing(8), NOWHERE[case](tmp_path))


def test_a_missing_workdir_is_made_later_and_not_by_the_check(tmp_path):
    check_writable(tmp_path / "not" / "yet", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_damaged_record_of_the_run(content, pretrained, tmp_path):
    (tmp_path / "config.json").write_text(content)
    config = config_with(tmp_path / "cache", str(pretrained), {})
    with pytest.raises(ValueError, match=r"config\.json cannot be read: .*another --workdir"):
        train_and_evaluate(config, tmp_path)
    assert (tmp_path / "config.json").read_text() == content


# Prediction


@pytest.fixture(scope="module")
def family(digits, faces):
    family = empty_family(1 / 32)
    family.add("digits", small_member(digits))
    family.add("faces", small_member(faces, 2))
    return family


UINT8 = np.full((2, 8, 8, 3), 200, np.uint8)
REFUSED_PREDICTIONS = {
    "one image without its axis": (UINT8[0], r"image\[None\]"),
    "five axes": (UINT8[None], r"expected \(n, height, width, 3\)"),
    "one channel": (UINT8[..., :1], r"expected \(n, height, width, 3\)"),
    "channels first": (UINT8.transpose(0, 3, 1, 2), r"expected \(n, height, width, 3\)"),
    "paths": (["a.png"], "family.preprocess"),
    "images of several shapes": ([UINT8[0], UINT8[0, :4]], "one shape for all"),
    "integers": (UINT8.astype(np.int64), "int64; expected uint8"),
    "flags": (UINT8 > 9, "bool; expected uint8"),
    "objects": (UINT8.astype(object), "object; expected uint8"),
    "odd sides": (UINT8[:, :7], "multiples of 8"),
    "no pixels": (UINT8[:, :0], r"shape \(2, 0, 8, 3\); expected at least"),
    "NaN": (np.full(UINT8.shape, np.nan), "NaN"),
    "infinite": (np.full(UINT8.shape, np.inf, np.float32), "infinite"),
    "floats in 0 to 255": (UINT8.astype(np.float32), "floats from 0 to 200; .*uint8"),
    "floats in -255 to 0": (-UINT8.astype(np.float32), "floats from -200 to 0"),
}


@pytest.mark.parametrize("case", REFUSED_PREDICTIONS)
def test_a_prediction_is_refused(case, family):
    images, message = REFUSED_PREDICTIONS[case]
    for named in ({"domain": "digits"}, {"domains": ["digits", "faces"]}):
        with pytest.raises(ValueError, match=message):
            family.predict(images, **named)
    with pytest.raises(ValueError, match=message):
        family.fold("digits").predict(images)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({}, ValueError, "either"),
        ({"domain": "digits", "domains": ["digits"] * 2}, ValueError, "either"),
        ({"domains": "digits"}, ValueError, "either"),
        ({"domains": ["digits"]}, ValueError, "1 domains for 2 images"),
        ({"domain": "svhn"}, KeyError, r"svhn.*\['digits', 'faces'\]"),
        ({"domains": ["svhn", "digits"]}, KeyError, "svhn"),
    ],
)
def test_a_domain_is_refused(named, error, message, family):
    with pytest.raises(error, match=message):
        family.predict(UINT8, **named)


def test_floats_in_0_to_1_come_with_a_warning(family):
    with pytest.warns(UserWarning, match=r"floats in \[0, 1\].*pass uint8"):
        family.predict(UINT8 / 255, domain="digits")


def test_normalised_floats_of_any_kind_are_taken(family, recwarn):
    facts = family["digits"].domain
    normalised = ((UINT8 / 255 - facts.mean) / facts.std).astype(np.float32)
    found = family.predict(normalised, domain="digits")
    np.testing.assert_allclose(found, family.predict(UINT8, domain="digits"), atol=1e-5)
    family.predict(jax.numpy.asarray(normalised, "bfloat16"), domain="digits")
    family.predict(np.zeros((1, 8, 8, 3)), domain="digits")
    assert not [warned for warned in recwarn if warned.category is UserWarning]


def test_a_domain_of_another_family_is_refused(family, digits, tmp_path):
    family.save_domain("digits", tmp_path / "d")
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, family.shared.params)
    for other, message in (
        (Family(Shared(params, ResNet26(1 / 32))), "other shared weights"),
        (empty_family(1 / 16), r"width 0\.0625\n.*width 0\.03125"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_domain(tmp_path / "d")
        assert other.domains == []
    with pytest.raises(ValueError, match="'digits' and 'DIGITS'; they would share"):
        family.load_domain(tmp_path / "d", "DIGITS")
    assert family.domains == ["digits", "faces"]


@pytest.mark.parametrize("path", ["none/d", ".", "/proc/radapt_jax"])
def test_a_domain_file_that_cannot_be_written(path, family, tmp_path):
    with pytest.raises(OSError, match=r"no place for a file|cannot be written to"):
        family.save_domain("digits", tmp_path / path)
    assert not list(tmp_path.iterdir())


# Cards and adapter files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def places(card, path=()):
    """The paths of all entries of a card, inside dicts and lists too."""
    inside = card.items() if isinstance(card, dict) else enumerate(card)
    for key, value in inside:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@pytest.fixture(scope="module")
def file(family, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "digits.safetensors"
    family.save_domain("digits", path)
    return path


def reads(card, file, folder):
    """Load a file with another card, its checksum in order."""
    text = card if isinstance(card, str) else json.dumps(card)
    metadata = {adapter_file.KEY: text, "sha256": adapter_file._digest(text)}
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), folder / "card", metadata)
    return adapter_file.read(folder / "card")


@some
@given(card=JSON | st.text(max_size=30))
@example(card="[" * 100_000)
@example(card='{"format": 1e999}')
@example(card='{"format": 1, "sha256": "", "collections": ["params"]}')
def test_any_json_as_a_card(card, file, tmp_path_factory):
    with pytest.raises(ValueError, match=r"card|format|describes no"):
        reads(card, file, tmp_path_factory.getbasetemp())


@some
@given(data=st.data())
def test_any_json_within_a_card(data, file, digits, tmp_path_factory):
    """One entry becomes anything: an error of ours, or the domain that was saved, renamed."""
    card = adapter_file.read_card(file)
    *above, last = data.draw(st.sampled_from(list(places(card))))
    inside = card
    for key in above:
        inside = inside[key]
    inside[last] = data.draw(JSON)
    try:
        member = reads(card, file, tmp_path_factory.getbasetemp())
        member.check()
    except ValueError:
        return
    check_name(member.domain.name)
    assert member.domain.num_classes == digits.domain.num_classes


@some
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
def test_a_truncated_adapter_file_is_refused(share, file, tmp_path_factory):
    whole = file.read_bytes()
    cut = tmp_path_factory.getbasetemp() / "cut.safetensors"
    for end in {int(share * len(whole)), int(share * 4096), len(whole) - 1}:
        cut.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="no safetensors file, or is cut short"):
            adapter_file.read(cut)


def test_a_card_that_is_no_text(digits, tmp_path):
    checkpoint.save_member(small_member(digits), tmp_path)
    (tmp_path / "domains" / "digits" / "card.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"card\.json holds no readable card"):
        checkpoint.load_member(tmp_path, "digits")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", 1)}, "classes .*expected several, each text"),
        ({"classes": "ab"}, "classes 'ab'"),
        ({"resize": 30_000}, "resize 30000; expected 8192 at most"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"size": 8.0}, "size 8.0"),
        ({"flip": 1}, "flip 1; expected True or False"),
    ],
)
def test_facts_of_a_domain_are_refused(change, message):
    facts = {"name": "d", "classes": ("a", "b"), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ValueError, match=message):
        Domain(**{**facts, **change})


@pytest.mark.parametrize(
    ("made", "change", "message"),
    [
        (ResNet26, {"width": float("nan")}, "width nan"),
        (Parallel, {"dropout": ("a", "b")}, "dropout"),
        (LowRank, {"ranks": {"stem": "1"}}, "ranks"),
        (LowRank, {"ranks": 0.0}, "ranks 0.0"),
    ],
)
def test_descriptions_of_a_network_are_refused(made, change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)
