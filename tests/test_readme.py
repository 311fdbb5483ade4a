"""Every command and example of README and guides, run from a directory like a fresh clone."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from families import empty_family, member_of, of_classes
from PIL import Image
from safetensors.numpy import load_file
from torch_files import zipped

import radapt_jax
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.models import ResNet50

README = (ROOT / "README.md").read_text()
CI = {"make quickstart", "make test", "pip install -e '.[imagenet]'"}  # run by `make check`
QUICKSTART = re.findall(r"\(RUN\) (train\.py (?:[^\\\n]|\\\n)+)", (ROOT / "Makefile").read_text())
LESS = (
    "--config.train.steps=2",
    "--config.train.evals=1",
    "--config.train.batch_size=16",
    "--config.backbone.width=0.125",
    "--config.data.size=16",
    "--config.data.resize=18",
)


DOCS = sorted((ROOT / "docs").glob("*.md"))
GUIDES = (
    "quickstart",
    "tutorial",
    "train",
    "domains",
    "python",
    "serve",
)  # pages that need a clone
TUTORIAL = (ROOT / "examples" / "tutorial.py").read_text()


def blocks(language, page=""):
    """Return the blocks of a language in a guide, or in the README."""
    text = (ROOT / "docs" / f"{page}.md").read_text() if page else README
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


COMMANDS = list(
    dict.fromkeys(
        line
        for page in ("", *GUIDES)
        for block in blocks("bash", page)
        for line in block.strip().splitlines()
    )
)


def save_images(folder, name):
    """Lay out an embedded domain as a folder of images, 6 of each class and split."""
    source = open_embedded(name)
    for split in ("train", "test"):
        seen = dict.fromkeys(range(len(source.classes)), 0)
        for example in source.splits[split]():
            if seen[example.label] < 6:
                seen[example.label] += 1
                place = folder / split / source.classes[example.label]
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(example.image).save(place / f"{seen[example.label]}.png")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What a clone has, and small real images under the names that the README's commands use."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("configs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    for domain in ("imagenet12", "cifar100", "rocks"):
        save_images(folder / "data" / domain, "surfaces")
    for domain in ("svhn", "decathlon_like/tiny_imagenet", "decathlon_like/cifar100"):
        save_images(folder / "data" / domain, "digits")
    for domain in ("gtsrb", "omniglot"):
        save_images(folder / "data" / "decathlon_like" / domain, "digits")
    return folder


def run(clone, arguments):
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def imagenet(clone):
    """A clone with ImageNet's weights in runs/imagenet, as the README's command puts them there."""
    (command,) = [it for it in COMMANDS if it.startswith("radapt import efficientnet")]
    run(clone, ["-m", "radapt_jax", *shlex.split(command)[1:]])
    return clone


def test_all_commands_are_known():
    assert len(COMMANDS) >= 9
    scripts = ("train.py ", "eval.py ", "examples/", "benchmarks/serve.py")
    for command in COMMANDS:
        called = command.removeprefix("python ")
        assert command in CI or called.startswith((*scripts, "radapt ")), command


def test_commands_in_order(clone):
    """The training commands on fewer steps and a narrower network, the others as they stand."""
    for command in COMMANDS:
        if re.search("runs/(quickstart|resnet50)", command) or not re.match(
            r"python (train|eval)\.py", command
        ):
            continue
        arguments = shlex.split(command)[1:]
        if arguments[0] == "train.py":
            arguments += [*LESS, f"--config.data.cache={clone / 'cache'}"]
        else:
            arguments += ["--cache", str(clone / "cache")]
        assert "times the backbone's parameters in all" in run(clone, arguments), command


def test_example_on_a_quickstart_family(clone):
    """The Makefile's quickstart, shortened, then the guides' Python examples on its result."""
    assert len(QUICKSTART) == 3
    for command in QUICKSTART:
        command = command.replace("\\\n", " ").replace("$(QUICK)", "runs/quickstart")
        if ":linear" not in command:
            run(clone, [*shlex.split(command), *LESS, f"--config.data.cache={clone / 'cache'}"])
    [swap], [restore] = blocks("python", "quickstart"), blocks("python", "train")
    fit, _ = blocks("python", "python")
    assert max(len(swap.strip().splitlines()), len(fit.strip().splitlines())) <= 16
    printed = run(clone, ["-c", swap])
    assert [line.split()[0] for line in printed.splitlines()] == ["digits", "surfaces"]
    assert run(clone, ["-c", restore]).strip() == "(1, 10)"
    assert "count=500" in run(clone, ["-c", fit.replace("steps=100", "steps=2")])
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if "runs/quickstart" in command and arguments[0] == "train.py":
            run(clone, [*arguments, *LESS, f"--config.data.cache={clone / 'cache'}"])
        elif command.startswith("python examples/serve"):
            assert run(clone, arguments), command
        elif program == "radapt" and not re.search("efficientnet|resnet50", command):
            assert run(clone, ["-m", "radapt_jax", *arguments]), command


def test_a_network_that_is_already_trained(imagenet):
    """With the weights of the package, on fewer steps."""
    trained, elsewhere = blocks("python")
    mixed = elsewhere.replace("other.predict(", "print(other.predict(").replace(
        "])  #", "]).shape)  #"
    )
    script = f"{trained.replace('steps=30', 'steps=2')}\n{mixed}"
    cat, scores, mixed = run(imagenet, ["-c", script]).splitlines()
    assert mixed == "(2, 1000)"
    assert cat == "tiger cat"
    assert "count=48" in scores
    (told,) = re.findall(r"# (\d+) kB", trained)
    found = (imagenet / "surfaces.safetensors").stat().st_size / 1000
    assert found == pytest.approx(int(told), rel=0.01)


def test_a_network_of_torchvision(clone, digits):
    """The import, and the training on a folder of images; narrower, and on fewer steps."""
    data = of_classes(digits, 1000)
    family = empty_family(1 / 16, ResNet50)
    family.add("digits", member_of(data, "none", 1, width=1 / 16, made=ResNet50))
    radapt_jax.export_torch(family, "digits", clone / "resnet50.safetensors")
    state = load_file(clone / "resnet50.safetensors")
    (clone / "resnet50.pth").write_bytes(zipped(state))
    imported, train = (command for command in COMMANDS if "runs/resnet50" in command)
    run(clone, ["-m", "radapt_jax", *shlex.split(imported)[1:]])
    less = [*LESS, "--config.backbone.width=0.0625", "--config.data.size=32"]
    less += ["--config.data.resize=32", f"--config.data.cache={clone / 'cache'}"]
    assert "rocks" in run(clone, [*shlex.split(train)[1:], *less])


def test_the_tutorial(imagenet):
    """Its page tells the script, block by block, and what it prints; on fewer steps."""
    script = "\n".join(block.strip("\n") + "\n" for block in blocks("python", "tutorial"))
    assert TUTORIAL.endswith(f'"""\n\n{script}')
    (imagenet / "less.py").write_text(TUTORIAL.replace('"steps": 100', '"steps": 2'))
    printed = run(imagenet, ["less.py"]).splitlines()
    (told,) = blocks("text", "tutorial")
    expected = told.strip().splitlines()
    assert [re.sub(r"[\d.]+", "", line.split(" ->")[0]) for line in printed[:8]] == [
        re.sub(r"[\d.]+", "", line.split(" ->")[0]) for line in expected[:8]
    ]
    sizes = [
        [int(size) for size in re.findall(r": (\d+) kB", "\n".join(lines))]
        for lines in (printed, expected)
    ]
    assert len(sizes[0]) == 3
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert printed[-4:] == expected[-4:]  # why the file is refused


def test_a_network_of_ones_own(clone):
    """The guide's example and the longer one, both on fewer steps."""
    _, own = blocks("python", "python")
    own = own.replace("steps=100", "steps=2, batch_size=8")
    assert run(clone, ["-c", own]).splitlines()[-1] == "(2, 3)"
    (command,) = [command for command in COMMANDS if "own_network" in command]
    printed = run(clone, [*shlex.split(command)[1:], "2"])
    assert [line.split(":")[0] for line in printed.splitlines()[:3]] == [
        *("digits", "faces", "surfaces")
    ]
    assert float(printed.split()[-1]) < 1e-4


def test_benchmark_runs(clone):
    """At a size where it takes seconds; what it measures is not asserted."""
    (command,) = [command for command in COMMANDS if "benchmarks/" in command]
    less = ["--width", "0.125", "--size", "16", "--batch", "9", "--repeats", "1"]
    less += ["--allow-dirty"]  # the copy is of no commit
    assert "mixed batch" in run(clone, [*shlex.split(command)[1:], *less])
    lines = (clone / "benchmarks" / "serve.csv").read_text().splitlines()
    assert len(lines) > 20


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def test_the_api_is_whole():
    told = (ROOT / "docs" / "api.md").read_text().split()
    public = set(radapt_jax.__all__) - {"DECATHLON", "__version__"}
    assert {f"radapt_jax.{name}" for name in public} <= set(told)


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@\w+@|TODO", README)
    assert not [page for page in DOCS if re.findall(r"@\w+@|TODO", page.read_text())]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_what_the_docs_name_is_there(page):
    """Recipes, entries of the config, flags and files; Python examples run."""
    text = page.read_text()
    for name in re.findall(r"(?:configs|benchmarks)/[\w/]+\.(?:py|csv)", text):
        assert (ROOT / name).is_file(), name
    entries = (ROOT / "configs" / "base.py").read_text()
    for entry in re.findall(r"--(config\.[\w.]+)=", text):
        assert f"{entry} = " in entries, entry
    modules = (ROOT / "radapt_jax" / "commands").glob("*.py")
    flags = "".join(module.read_text() for module in modules)
    commands = re.findall(r"^python (?:train|eval)\.py (.*)$", text, re.MULTILINE)
    for flag in re.findall(r"--(\w+) ", " ".join(commands)):
        assert f'"{flag}"' in flags, flag
    if page.stem not in GUIDES:
        for example in blocks("python", page.stem):
            exec(compile(example, page.name, "exec"), {})
