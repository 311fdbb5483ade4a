"""`radapt compress`: a family with smaller domains, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from radapt_jax.commands.saving import check_new, save_new
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.compress.which import compressible, targets
from radapt_jax.data.load import NothingToEvaluate, load_splits
from radapt_jax.evaluation.sources import open_source
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.evaluation.training_images import IMAGES, in_batches
from radapt_jax.family import adapter_file
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.rounding import Rounding, rounding_of
from radapt_jax.utils.checks import names

SHARE = 0.5  # of the full rank, as in the paper


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("workdir", metavar="RUN")
    parser.add_argument("--out", required=True, help="the folder to write, a new one")
    parser.add_argument(
        "--bits", type=int, default=32, help="round adapters to 2, 3, 4 or 8 bits a value"
    )
    parser.add_argument("--kind", choices=targets(), help="cut ranks: what adapters become")
    share = f"of --kind: rank over full rank of a layer ({SHARE})"
    parser.add_argument("--share", type=float, help=share)
    parser.add_argument("--domains", default="", help="comma-separated; all that can be")
    count = "training images for norm statistics anew; 0: none (%(default)s)"
    parser.add_argument("--statistics", type=int, default=IMAGES, help=count)
    parser.add_argument("--data_dir", help="where the images are, if they have moved")
    parser.add_argument("--cache", default="~/.cache/radapt_jax", help="of decoded images")


def compress(arguments: argparse.Namespace) -> None:
    """Write the family with smaller domains, and a file of each of these in its folder `files`.

    Raises:
      ValueError: neither bits nor a kind are given, nothing can be made smaller, or a domain's
        images are others than those it was trained on.
      KeyError: there is no such domain.
      OSError: nothing can be written there.
    """
    bits, kind, out = arguments.bits, arguments.kind, Path(arguments.out)
    if bits == 32 and kind is None:
        raise ValueError(
            "found neither --bits nor --kind; expected one of them or both, such as --bits 4."
        )
    if kind is None and arguments.share is not None:
        raise ValueError(
            f"found --share {arguments.share} without --kind; expected a kind whose rank is cut, "
            f"one of {targets()}."
        )
    rounding = rounding_of(bits)
    check_new(out)
    family = Family.load(arguments.workdir)
    chosen = list(names(arguments.domains)) or _all(family, kind)
    if not chosen:
        kinds = {name: family[name].spec.adapter.kind for name in family}
        raise ValueError(f"found no domain with adapters that can be made smaller: {kinds}.")
    before = {name: adapter_file.size(family[name]) for name in chosen}
    if kind is not None:
        share = SHARE if arguments.share is None else arguments.share
        rule = rank_rule("uniform", share=share)
        family = compress_family(family, kind, rule, domains=chosen)
    for name in chosen:
        member = _renewed(family, name, rounding, arguments)
        family.add(name, member if rounding is None else member.rounded(rounding))
    save_new(family, out)
    (out / "files").mkdir(exist_ok=True)
    for name in family:
        if name not in chosen:
            print(f"{name}: kept as it is ({family[name].spec.adapter.kind})")
            continue
        path = out / "files" / f"{name}.safetensors"
        family.save_domain(name, path)
        now = path.stat().st_size
        print(f"{path}: {before[name] / 1000:,.1f} kB before, {now / 1000:,.1f} kB now")


def _renewed(
    family: Family, name: str, rounding: Rounding | None, arguments: argparse.Namespace
) -> Member:
    """Return a domain with norm statistics taken anew, if its training images are at hand."""
    member = family[name]
    if not arguments.statistics:
        return member
    try:
        spec, source = open_source(member, arguments.data_dir)
        cache = Path(arguments.cache).expanduser()
        splits, _ = load_splits(spec, source, cache, member.record)
    except (FileNotFoundError, NothingToEvaluate) as error:
        print(
            f"{name}: its norms keep the statistics of the dense adapters, since its images are "
            f"not at hand. {error} Take them anew with radapt_jax.renew_statistics."
        )
        return member
    count = in_batches(arguments.statistics)
    return renewed(family, name, splits["train"], **count, rounding=rounding)


def _all(family: Family, kind: str | None) -> list[str]:
    """Return the names of all domains that can be made smaller."""
    if kind is not None:
        return compressible(family, kind)
    return [
        name
        for name in family.domains
        if family[name].spec.kind.leaves and not family[name].has_own_weights
    ]
