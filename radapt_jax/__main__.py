"""The command line: `radapt --help`, or `python -m radapt_jax --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from radapt_jax import startup
from radapt_jax.commands import compress as compressing
from radapt_jax.commands import report as reporting
from radapt_jax.commands import serve as serving
from radapt_jax.commands.saving import save_new
from radapt_jax.convert import ORIGINS, state_dict_of
from radapt_jax.convert import export_torch as export_to_torch
from radapt_jax.convert.packages import PACKAGES, file_of
from radapt_jax.convert.pickled import short
from radapt_jax.convert.recognise import counters, recognise
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.decathlon.labels import score_submission
from radapt_jax.decathlon.table import points_table
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.family import merge as family_merge
from radapt_jax.family.family import Family
from radapt_jax.family.fits import check_not_source
from radapt_jax.family.merge import Rename
from radapt_jax.report.render import STYLES
from radapt_jax.train.lock import held
from radapt_jax.utils.checks import names


def _train() -> ModuleType:
    from radapt_jax.commands import train

    return train


def _evaluate() -> ModuleType:
    from radapt_jax.commands import evaluate

    return evaluate


# Commands with absl's flags; only one of them can be imported, as both have a flag --workdir.
WITH_FLAGS = {"train": _train, "eval": _evaluate}


def ls(arguments: argparse.Namespace) -> None:
    family = Family.load(arguments.workdir)
    for name in family:
        member = family[name]
        facts = f"{member.method:12} {member.domain.num_classes:5} classes"
        print(f"{name:20} {facts} {family.parameters(name):12,} parameters")


def info(arguments: argparse.Namespace) -> None:
    path = Path(arguments.path)
    if arguments.domain:
        there = checkpoint.list_members(path)
        if arguments.domain not in there:
            raise KeyError(f"found no domain {arguments.domain!r} in {path}; there are {there}.")
        path = path / "domains" / arguments.domain
    if path.is_dir():
        folder = path if (path / checkpoint.CARD).is_file() else path / "shared"
        card: Any = checkpoint.read_card(folder, "shared weights or domain", str)
    else:
        card = adapter_file.read_card(path)
    print(json.dumps(card, indent=1))


def save(arguments: argparse.Namespace) -> None:
    family = Family.load(arguments.workdir, [arguments.domain])
    family.save_domain(arguments.domain, arguments.file, bits=arguments.bits)
    size = Path(arguments.file).stat().st_size
    print(f"{arguments.file}: {arguments.domain}, {size / 1000:,.0f} kB")


def swap(arguments: argparse.Namespace) -> None:
    member, workdir = adapter_file.read(arguments.file), Path(arguments.workdir)
    name = arguments.name or member.domain.name
    if not workdir.is_dir():
        raise FileNotFoundError(f"found no workdir {workdir}; expected one with a family in it.")
    with held(workdir):
        family = Family.load(workdir)
        what = "replaced" if name in family else "added"
        if name in family:
            check_not_source(name, family.shared)
            if not arguments.replace:
                raise ValueError(
                    f"{workdir} has a domain {name!r}; say --replace, or --name=OTHER to add it."
                )
        family.add(name, member)
        checkpoint.save_member(family[name], workdir)
    print(f"{workdir}: {name} {what}")


def export(arguments: argparse.Namespace) -> None:
    family = Family.load(arguments.workdir, [arguments.domain])
    family.export(arguments.domain, arguments.file, platforms=names(arguments.platforms))
    print(f"{arguments.file}: StableHLO for {arguments.platforms}; facts in {arguments.file}.json")


def export_torch(arguments: argparse.Namespace) -> None:
    family = Family.load(arguments.workdir, [arguments.domain])
    export_to_torch(family, arguments.domain, arguments.file)
    backbone = family[arguments.domain].spec.backbone
    print(f"{arguments.file}: {arguments.domain}, a {backbone.name} in the layout of PyTorch")


def merge(arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        raise ValueError(
            "found no --out; expected: merge IN... --out OUT. The folder to write is no longer "
            "named first."
        )
    merged = family_merge.merge(arguments.workdirs, map(Rename.parse, arguments.rename))
    save_new(merged, Path(arguments.out))


def import_(arguments: argparse.Namespace) -> None:
    file = file_of(arguments.file)
    state = state_dict_of(file)
    origin = recognise(state)
    named = {"name": arguments.name} if arguments.name else {}
    domains = ORIGINS[origin].domains(state)
    if not 0 <= arguments.domain < domains:
        raise ValueError(f"found --domain {arguments.domain}; expected 0 to {domains - 1} here.")
    chosen = {"domain": arguments.domain} if domains > 1 else {}
    family = ORIGINS[origin].family(state, **named, **chosen)
    unused = ORIGINS[origin].unused(state, **chosen)
    if domains > 1:
        print(f"domain {arguments.domain} of {domains}, from 0; --domain chooses another")
    spec = family[family.domains[0]].spec
    print(f"{file}: {origin}, {spec.backbone.name}, adapters: {spec.adapter.kind}")
    print(f"{len(state) - len(unused)} of {len(state)} tensors used, none is missing")
    counts = set(counters(state))
    if counts:
        print(f"unused: {len(counts)} counts of batches, num_batches_tracked")
    for name in unused:
        if name not in counts:
            print(f"unused: {short(name)}")
    save_new(family, Path(arguments.out))


def predict(arguments: argparse.Namespace) -> None:
    family = Family.load(arguments.workdir, [arguments.domain])
    images = family.preprocess(arguments.images, domain=arguments.domain)
    classes = family[arguments.domain].domain.classes
    found = family.predict(images, domain=arguments.domain)
    for path, probabilities in zip(arguments.images, found, strict=True):
        best = int(probabilities.argmax())
        print(f"{path}\t{classes[best]}\t{probabilities[best]:.3f}")


def prepare(arguments: argparse.Namespace) -> None:
    from radapt_jax.data.decathlon.prepare import (
        prepare_decathlon,  # tensorflow-datasets loads slowly
    )

    domains = arguments.domains.split(",") if arguments.domains else list(DECATHLON)
    prepare_decathlon(
        arguments.archives, arguments.data_dir, domains=domains, mirror=arguments.mirror
    )
    print(f"{arguments.data_dir}: {', '.join(domains)}")


def score(arguments: argparse.Namespace) -> None:
    accuracies = score_submission(arguments.submission, arguments.labels)
    left_out = [name for name in DECATHLON if name not in accuracies]
    notes = ["evaluated on the challenge's test split."]
    if left_out:
        notes.append(
            f"{len(accuracies)} of {len(DECATHLON)} domains; without {', '.join(left_out)}."
        )
    print(points_table(accuracies, arguments.format, notes=notes))


def program() -> str:
    """Return what the user typed to start this: "radapt", or "python -m radapt_jax"."""
    name = Path(sys.argv[0]).name
    return name if name == "radapt" else "python -m radapt_jax"


def run_with_flags(arguments: list[str]) -> None:
    """Run `train` or `eval`, which read their flags as train.py and eval.py do."""
    name, *rest = arguments
    module = WITH_FLAGS[name]()
    sys.modules["__main__"].__doc__ = module.__doc__  # what absl's --help begins with
    sys.argv[1:] = arguments  # where a config's entries are looked for
    startup.run(module.main, [f"{program()} {name}", *rest])


def parser() -> argparse.ArgumentParser:
    """Return the parser; every command names the function that runs it."""
    top = argparse.ArgumentParser(program(), description="Train, use and exchange families.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="train the domains of a recipe: train --help")
    commands.add_parser("eval", help="evaluate the domains of workdirs: eval --help")

    def command(
        run: Any, summary: str, *arguments: str, group: Any = commands
    ) -> argparse.ArgumentParser:
        name = run.__name__.rstrip("_").replace("_", "-")
        found = group.add_parser(name, help=summary, description=summary)
        found.set_defaults(run=run)
        for argument in arguments:
            found.add_argument(argument)
        return found

    command(ls, "list the domains of a workdir", "workdir")
    one = command(info, "print the facts of a domain's file, or of a workdir", "path")
    one.add_argument("domain", nargs="?", help="a domain of the workdir")
    one = command(save, "write a domain as one safetensors file", "workdir", "domain", "file")
    one.add_argument(
        "--bits", type=int, default=32, help="round its adapters to 2, 3, 4 or 8 bits a value"
    )
    summary = "write a family with smaller domains, and their files; no training"
    compressing.add_arguments(command(compressing.compress, summary))
    reporting.add_arguments(command(reporting.report, "write a page about finished runs"))
    serving.add_arguments(command(serving.serve, "serve a family over HTTP"))
    one = command(swap, "put a domain's file into a workdir", "workdir", "file")
    one.add_argument("--name", help="under another name")
    one.add_argument("--replace", action="store_true", help="in place of the one of that name")
    one = command(export, "write a domain as StableHLO for jax alone", "workdir", "domain", "file")
    one.add_argument(
        "--platforms",
        default="cpu,cuda",
        help="comma-separated, of cpu, cuda, rocm and tpu (%(default)s)",
    )
    summary = "write a domain, folded, as a safetensors file for PyTorch"
    command(export_torch, summary, "workdir", "domain", "file")
    one = command(merge, "put the domains of several workdirs into a new one")
    one.add_argument("workdirs", nargs="+", metavar="IN", help="runs on the same shared weights")
    one.add_argument("--out", help="the folder to write, a new one")
    one.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="[IN:]OLD=NEW",
        help="a domain's new name; IN tells which where several have it; may be repeated",
    )
    one = command(import_, "make a family of a PyTorch or safetensors file")
    one.add_argument("file", help=f"or a network of an installed package: {', '.join(PACKAGES)}")
    one.add_argument("--out", required=True, help="the folder to write, a new one")
    one.add_argument("--name", help="of the domain that the network was trained on")
    one.add_argument("--domain", type=int, default=0, help="which of several, from 0 (%(default)s)")
    one = command(predict, "classify image files", "workdir", "domain")
    one.add_argument("images", nargs="+")
    summary = "prepare the Visual Decathlon, or score a submission to it"
    one = commands.add_parser("decathlon", help=summary, description=summary)
    group = one.add_subparsers(required=True, metavar="COMMAND")
    summary = "prepare the Visual Decathlon from its official archives"
    one = command(prepare, summary, "archives", "data_dir", group=group)
    one.add_argument("--domains", help="comma-separated; all ten if not given")
    one.add_argument("--mirror", help="URL of a folder from which missing archives are fetched")
    one = command(score, "score a submission's results.json", "submission", group=group)
    where = "folder or zip file of <domain>_test.json"
    one.add_argument("--labels", required=True, metavar="PATH", help=where)
    one.add_argument("--format", choices=list(STYLES), default="text", help="of the table")
    return top


def main(arguments: list[str] | None = None) -> None:
    """Run one command; errors of the user's are one line on stderr and exit code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in WITH_FLAGS:
        run_with_flags(arguments)
        return
    chosen = parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")


if __name__ == "__main__":
    main()
