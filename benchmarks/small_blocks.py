"""The tables of a study of small domains (smaller/run.py)."""

import numpy as np
from cells import interval, mean_and_std, table

DENSE, PLAIN, STATISTICS = "dense", "none", "statistics"
UNTRAINED = (PLAIN, STATISTICS)


def compression(lines):
    """Each way: its bytes, and its mean top-1 over domains against dense adapters.

    Without training these are the dense ones as they were trained; after fine-tuning, those that
    were fine-tuned as long. Differences are paired by seed.
    """
    cases = _cases(lines)
    dense, found = _bytes(cases[DENSE, PLAIN]), []
    for way in dict.fromkeys(way for way, _ in cases):
        trained = [it for it in cases if it[0] == way and it[1] not in UNTRAINED]
        places = [(way, it) for it in UNTRAINED]
        known = next(it for it in (*places, *trained) if it in cases)
        size = _bytes(cases[known])
        shown = [_against(cases, it, (DENSE, PLAIN)) if it in cases else "" for it in places]
        control = [_against(cases, it, (DENSE, it[1])) for it in trained] or [""]
        found.append([way, f"{size / 1000:,.1f}", f"1/{dense / size:.1f}", *shown, *control])
    head = ["adapters", "kB of a domain", "of dense", "as they are", "new statistics", "fine-tuned"]
    return table(head, found)


def compression_by_domain(lines):
    """Test top-1 of each domain after fine-tuning, by way."""
    cases = _cases(lines)
    ways = [it for it in cases if it[1] not in UNTRAINED]
    columns = [(DENSE, PLAIN), *ways]
    found = []
    for domain in cases[DENSE, PLAIN]:
        tops = [[_top1(row) for row in cases[it][domain].values()] for it in columns]
        found.append([domain, *map(mean_and_std, tops)])
    means = [mean_and_std(list(_means(cases[it]).values())) for it in columns]
    names = ["dense, not fine-tuned", *(way for way, _ in ways)]
    return table(["domain", *names], [*found, ["mean", *means]])


def _cases(lines):
    """Return rows with test images by way and training, then by domain and seed."""
    found = {}
    for row in lines:
        if row["test_top1"]:
            case = found.setdefault((row["way"], row["training"]), {})
            case.setdefault(row["domain"], {})[row["seed"]] = row
    return found


def _bytes(case):
    """Return the mean bytes of a domain."""
    return np.mean([int(row["bytes"]) for it in case.values() for row in it.values()])


def _top1(row):
    return float(row["test_top1"])


def _means(case):
    """Return the mean top-1 over domains by seed, of seeds with all domains."""
    seeds = set.intersection(*(set(it) for it in case.values()))
    return {seed: np.mean([_top1(it[seed]) for it in case.values()]) for seed in sorted(seeds)}


def _against(cases, case, control):
    """Return a mean, and what it is above or below that of another case."""
    ours = _means(cases[case])
    if case == control or control not in cases:
        return mean_and_std(list(ours.values()))
    theirs = _means(cases[control])
    seeds = [seed for seed in ours if seed in theirs]
    means = mean_and_std([ours[seed] for seed in seeds])
    return f"{means} ({interval([ours[it] - theirs[it] for it in seeds], 2)})"
