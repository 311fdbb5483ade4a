"""The tables of the study of every method on nine domains (study/run.py)."""

import re

import numpy as np
from cells import interval, mean_and_std, table
from study.parts import BRIEF, CROPPED, METHODS
from trained_runs import DOMAINS, SOURCE

from radapt_jax.decathlon.score import points_of

BASELINE, AGAINST = "finetune", ("finetune", "parallel")
HEADLINE = (
    *("linear", "norm", "joint, K = C/2", "parallel, int4", "parallel", "parallel, our recipe"),
    *("parallel, taught by finetune", "series off the shelf", "finetune"),
)
SHARE = re.compile(r"(.+), (\d+) % of the images")


def study(lines):
    """Each method: its mean top-1 over domains, alone and against others, and what it takes.

    Differences are paired by domain and seed, and say of how many seeds they are where others have
    more; the interval is that of their mean over domains.
    """
    found = whole(lines)
    rows = [_row(found, name) for name in found if not SHARE.fullmatch(name)]
    return table(list(rows[0]), [list(row.values()) for row in rows])


def study_headline(lines):
    """The same of a few methods, in short."""
    found = whole(lines)
    columns = ["method", "n", "top-1", f"over {BASELINE}", "parameters in all", "kB of a file"]
    rows = [_row(found, name) for name in HEADLINE if name in found]
    return table(columns, [[row[it] for it in columns] for row in rows])


def study_by_domain(lines):
    """Test top-1 of each method on each domain."""
    found = whole(lines)
    return table(
        ["method", *DOMAINS],
        [
            [name, *(mean_and_std(top1(found[name], it)) for it in DOMAINS)]
            for name in found
            if not SHARE.fullmatch(name)
        ],
    )


def study_of_shares(lines):
    """Mean top-1 by method and share of the training images; of all, that of the shares' seeds."""
    found, by_method = whole(lines), {}
    for name in found:
        if share := SHARE.fullmatch(name):
            by_method.setdefault(share[1], {})[int(share[2])] = found[name]
    for name, shares in by_method.items():
        whole_sets, seeds = found.get(name, {}), set().union(*shares.values())
        shares[100] = {seed: rows for seed, rows in whole_sets.items() if seed in seeds}
    if not by_method:
        return "Not measured yet."
    shares = sorted({it for method in by_method.values() for it in method})
    return table(
        ["method", *(f"{it} %" for it in shares)],
        [
            [name, *(mean_and_std(means(method[it])) if method.get(it) else "" for it in shares)]
            for name, method in by_method.items()
        ],
    )


def study_original(lines, theirs):
    """Ours beside the original's network, on the domains and methods that it was trained on."""
    domains = list(dict.fromkeys(row["domain"] for row in theirs))
    found = {**whole(lines, CROPPED), **whole(lines, domains)}
    lengths = {
        **{f"ours, {BRIEF}": f", {BRIEF}", f"ours, {BRIEF}, crops": f", {BRIEF}, crops"},
        "ours, 25 epochs": "",
    }
    cells = []
    for method in dict.fromkeys(row["method"] for row in theirs):
        known = {it["domain"]: float(it["test_top1"]) for it in theirs if it["method"] == method}
        cells.append([f"{method}, PyTorch", *(f"{known[it]:.1f}" for it in domains)])
        for name, suffix in lengths.items():
            if seeds := found.get(method + suffix):
                there = next(iter(seeds.values()))
                ours = (mean_and_std(top1(seeds, it)) if it in there else "" for it in domains)
                cells.append([f"{method}, {name}", *ours])
    return table(["", *domains], cells)


def study_recipes(lines):
    """Validation top-1 of changes of the recipe, and what they gain, paired by seed and domain."""
    by_change = {}
    for row in lines:
        seeds = by_change.setdefault(row["change"], {}).setdefault(row["seed"], {})
        seeds[row["domain"]] = float(row["val_top1"])
    base = by_change.pop("none")
    means = ", ".join(f"{np.mean([*base[seed].values()]):.1f}" for seed in sorted(base))
    first = ["the paper's recipe", ", ".join(sorted(base)), means, "", *("" for _ in DOMAINS)]
    cells = []
    for change, found in by_change.items():
        seeds = sorted(found.keys() & base.keys())
        if not seeds:
            continue
        more = [np.mean([found[it][name] - base[it][name] for it in seeds]) for name in DOMAINS]
        mean = np.mean([found[it][name] for it in seeds for name in DOMAINS])
        shown = [change, ", ".join(seeds), f"{mean:.1f}", interval(more)]
        cells.append((np.mean(more), [*shown, *(f"{it:+.1f}" for it in more)]))
    ordered = [row for _, row in sorted(cells, key=lambda it: -it[0])]
    columns = ["change", "seed", "top-1", "over the paper's recipe", *DOMAINS]
    return table(columns, [first, *ordered])


def whole(lines, domains=DOMAINS):
    """Return rows by method, seed and domain, of seeds that have all domains."""
    found = {name: {} for name in METHODS}
    for row in lines:
        found[row["method"]].setdefault(row["seed"], {})[row["domain"]] = row
    found = {
        name: {seed: rows for seed, rows in seeds.items() if set(domains) <= set(rows)}
        for name, seeds in found.items()
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def top1(seeds, domain):
    """Return top-1 of a domain by seed."""
    return np.array([float(rows[domain]["test_top1"]) for rows in seeds.values()])


def means(seeds):
    """Return the mean top-1 over domains by seed."""
    return np.mean([top1(seeds, it) for it in DOMAINS], axis=0)


def differences(found, name, other):
    """Return by domain what one method has above another, the mean over seeds that both have."""
    ours, theirs = paired(found, name, other)
    return [np.mean(top1(ours, it) - top1(theirs, it)) for it in DOMAINS] if ours else []


def paired(found, name, other):
    """Return the rows of two methods by seed, of the seeds that both have."""
    both = sorted(found[name].keys() & found.get(other, {}).keys())
    return [{seed: found[it][seed] for seed in both} for it in (name, other)]


def _row(found, name):
    """Return the cells of a method by column."""
    seeds = found[name]
    rows = [it[domain] for it in seeds.values() for domain in DOMAINS]
    sizes = [int(row["bytes"]) for row in rows if row["bytes"]]
    minutes = sum(float(row["minutes"]) for row in rows) / len(seeds)
    return {
        **{"method": name, "n": str(len(seeds)), "top-1": mean_and_std(means(seeds))},
        **{f"over {it}": _difference(found, name, it) for it in AGAINST},
        **{"score": _score(found, name), "parameters in all": f"{parameters(seeds):.2f}x"},
        "kB of a file": f"{np.mean(sizes) / 1000:,.0f}" if sizes else "",
        "minutes": f"{minutes:.0f}",
    }


def _difference(found, name, other):
    more = differences(found, name, other) if name != other else []
    if not more:
        return ""
    count = len(paired(found, name, other)[0])
    return interval(more) + ("" if count == len(found[name]) else f" (n = {count})")


def _score(found, name):
    """Return the decathlon's score, by the mean errors of seeds that finetuning has as well.

    E_max is twice finetuning's error. Without such seeds: "".
    """
    ours, theirs = paired(found, name, BASELINE)
    if not ours:
        return ""
    domains = [it for it in (*DOMAINS, SOURCE) if it in next(iter(ours.values()))]
    errors, most = (
        [100 - np.mean(top1(seeds, domain)) for domain in domains] for seeds in (ours, theirs)
    )
    points = (points_of(ours, 2 * base) for ours, base in zip(errors, most, strict=True))
    return f"{sum(points):,.0f}"


def parameters(seeds):
    """Return the parameters of backbone and nine domains over the backbone's, heads apart.

    What domains share of compressed adapters counts once.
    """
    rows = next(iter(seeds.values()))
    shared = max(float(rows[it]["basis"]) for it in DOMAINS)
    return 1 + shared + sum(float(rows[it]["ratio"]) for it in DOMAINS)
