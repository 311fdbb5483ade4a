"""Domains as files: exact, small, and refused when anything about them is off."""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import SMALL
from families import empty_family, member_of, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import radapt_jax
from radapt_jax import Family, ResNet26, __main__
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.data.load import load_domain
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.utils import trees

NARROW = 1 / 32


@pytest.fixture(scope="module")
def family(digits, faces):
    family = empty_family()
    member = member_of(digits, "parallel", 1)
    family.add("digits", dataclasses.replace(member, held_out=digits.held_out))
    family.add("faces", member_of(faces, "series", 2))
    return family


@pytest.fixture(scope="module")
def file(family, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "digits.safetensors"
    family.save_domain("digits", path)
    return path


def test_round_trip(family, file, digits):
    other = Family(family.shared)
    assert other.load_domain(file) == "digits"
    assert other.load_domain(file, name="numbers") == "numbers"
    chex.assert_trees_all_equal(other.variables("numbers"), family.variables("digits"))
    assert other["digits"].domain == family["digits"].domain
    images = whole(digits.splits["test"], range(3))
    np.testing.assert_array_equal(
        other.predict(images, domain="numbers"), family.predict(images, domain="digits")
    )
    card = adapter_file.read_card(file)
    assert card["domain"]["classes"] == list("0123456789")
    assert card["shared"] == family.fingerprint
    assert card["version"]
    assert file.stat().st_size < 120_000  # width 1/8


def test_what_leaves_the_machine_does_not_say_where_it_lay(
    image_folder, cache_dir, tmp_path, caplog
):
    """And `evaluate` says how to name the place where the images are now."""
    fields = {**SMALL, "source": "folder", "dir": image_folder}
    data = load_domain("stones", fields, {"dataset": str(image_folder / "rocks")}, cache_dir)
    made = dataclasses.replace(
        member_of(data, "parallel", 1), data=data.spec, held_out=data.held_out
    )
    family = empty_family()
    family.add("stones", made)
    family.save_domain("stones", tmp_path / "file")
    family.export("stones", tmp_path / "stablehlo", platforms=["cpu"])
    places = (image_folder, Path(radapt_jax.__file__).parent, Path(jax.__file__).parents[1])
    for path in tmp_path.iterdir():
        for place in (*places, Path.home()):
            assert f"{place}/".encode() not in path.read_bytes(), (path.name, place)
    family.save(tmp_path / "workdir")  # which stays
    assert Family.load(tmp_path / "workdir")["stones"].data == data.spec
    other = Family(family.shared)
    other.load_domain(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"'rocks'.*--data_dir DIR"):
        evaluate_family(other, domains=["stones"], cache_dir=cache_dir)
    (row,) = evaluate_family(other, cache_dir=cache_dir, data_dir=image_folder)
    assert (row.split, row.count) == ("test", 6)
    (row,) = evaluate_family(other, cache_dir=cache_dir, data_dir=image_folder, split="val")
    assert row.count == len(data.splits["val"])
    with caplog.at_level("INFO"):  # where images are that are not where the card says
        (row,) = evaluate_family(other, cache_dir=cache_dir, or_in=str(image_folder))
    assert (row.split, row.count) == ("test", 6)
    assert f"stones: images in {image_folder}, as they are not where its card says" in caplog.text
    moved = dataclasses.replace(data.spec, dir=str(tmp_path / "first"), dataset="rocks")
    other.add("moved", dataclasses.replace(made, data=moved))
    with pytest.raises(FileNotFoundError, match="first"):  # the place that the card names
        evaluate_family(other, domains=["moved"], cache_dir=cache_dir, or_in=str(tmp_path / "no"))


def test_a_jointly_compressed_domain(digits, tmp_path):
    family = empty_family()
    family.add("digits", member_of(digits, "parallel", 1))
    small = compress_family(family, "joint", rank_rule("uniform"))
    small.save_domain("digits", tmp_path / "digits")
    other = Family(small.shared)
    other.load_domain(tmp_path / "digits")
    chex.assert_trees_all_equal(other.variables("digits"), small.variables("digits"))
    with pytest.raises(ValueError, match="no shared β"):
        Family(family.shared).load_domain(tmp_path / "digits")


def test_on_another_family_it_is_refused_with_both_sides(file, digits):
    own = member_of(digits, "none", 9, own_weights=True).variables["params"]
    other = Family(type(empty_family().shared)(own, ResNet26(0.125)))
    with pytest.raises(ValueError, match="other shared weights") as error:
        other.load_domain(file)
    assert other.fingerprint[:12] in str(error.value)
    assert adapter_file.read_card(file)["shared"][:12] in str(error.value)
    assert other.domains == []
    with pytest.raises(ValueError, match=r"width 0\.25"):
        empty_family(0.25).load_domain(file)
    with pytest.raises(FileNotFoundError):
        other.load_domain(file.with_name("none"))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damaged_file_is_read(data, file, tmp_path_factory):
    """Any byte flipped, anything cut off: an error of ours, never other values."""
    whole = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged.write_bytes(whole)
    try:
        member = adapter_file.read(damaged)
    except ValueError:
        return
    intact = adapter_file.read(
        file
    )  # a flip in padding or in the order of a header changes nothing
    chex.assert_trees_all_equal(member.variables, intact.variables)
    assert member.domain == intact.domain


def rewrite(file, path, change):
    """Write the bundle again, checksum and all, with its card changed."""
    card = change(adapter_file.read_card(file))
    text = card if isinstance(card, str) else json.dumps(card)
    metadata = {adapter_file.KEY: text, "sha256": adapter_file._digest(text)}
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), path, metadata)
    return path


def networked(card, part, **entries):
    """A card with other entries in one part of its network."""
    network = card["network"]
    return {**card, "network": {**network, part: {**network[part], **entries}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: "{not json", "no readable card"),
        (lambda card: "[]", "format None"),
        (lambda card: {**card, "format": 3}, "format 3"),
        (lambda card: {key: card[key] for key in ("format", "collections")}, "no domain"),
        (lambda card: {**card, "domain": {**card["domain"], "std": [0, 0, 0]}}, r"\(0, inf\)"),
        (lambda card: {**card, "domain": {**card["domain"], "name": "../x"}}, "domain name"),
        (lambda card: {**card, "domain": {**card["domain"], "classes": ["a"]}}, "head/kernel"),
        (lambda card: networked(card, "backbone", width=1e6), r"\(0, 64\]"),
        (lambda card: networked(card, "backbone", width=0.25), "does not fit"),
        (lambda card: networked(card, "adapter", kind="magic"), "magic"),
        (lambda card: {**card, "network": 7}, "no domain"),
        (lambda card: {**card, "collections": ["params"]}, "does not fit"),
        (lambda card: {**card, "sha256": "0" * 64}, "damaged"),
    ],
)
def test_facts_that_do_not_fit_are_refused(change, message, file, family, tmp_path):
    with pytest.raises(ValueError, match=message):
        Family(family.shared).load_domain(rewrite(file, tmp_path / "x", change))
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, plain)
    with pytest.raises(ValueError, match="holds no radapt_jax domain"):
        adapter_file.read(plain)


ODD = [None, "x", float("nan"), 1e308]


def entries(card, path=()):
    """The paths of all entries of a card, those inside included."""
    for key, value in card.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from entries(value, (*path, key))


def changed(card, path, value):
    """The card with one entry replaced; deleted where the value is `entries`."""
    new = json.loads(json.dumps(card))
    place = new
    for key in path[:-1]:
        place = place[key]
    if value is entries:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return new


def test_every_entry_of_a_card_with_odd_values(file, family, tmp_path):
    """An error of ours, or a domain that predicts finite numbers; with every checksum in order."""
    card = adapter_file.read_card(file)
    family.save(tmp_path / "family")
    shared = tmp_path / "family" / "shared" / "card.json"
    whole = shared.read_text()
    for path in entries(card):
        for value in (entries, *ODD):
            other = Family(family.shared)
            try:
                name = other.load_domain(
                    rewrite(file, tmp_path / "x", lambda it: changed(it, path, value))  # noqa: B023
                )
            except ValueError:
                continue
            assert path[0] in ("domain", "network", "method", "images", "results", "version",
                               "parameters", "data", "held_out", "rounding"), path  # fmt: skip
            assert np.isfinite(other[name].domain.mean).all()
            assert other[name].held_out in (None, family["digits"].held_out)
    for path in entries(json.loads(whole)):
        for value in (entries, *ODD):
            shared.write_text(json.dumps(changed(json.loads(whole), path, value)))
            try:
                checkpoint.load_shared(tmp_path / "family")
            except ValueError:
                continue
            assert path[0] in ("source", "adapter", "basis"), (path, value)
    with pytest.raises(ValueError, match=r"deeply|readable"):
        adapter_file.read(rewrite(file, tmp_path / "x", lambda _: "[" * 200_000))


@pytest.mark.parametrize("part", ["card.json", "variables"])
def test_damaged_workdirs_are_refused(part, family, tmp_path):
    """Every file of a domain in turn: cut in half, then gone."""
    checkpoint.save_member(family["faces"], tmp_path)
    folder = tmp_path / "domains" / "faces"
    files = [folder / part] if part == "card.json" else sorted((folder / part).rglob("*"))
    intact = checkpoint.load_member(tmp_path, "faces")
    for path in [path for path in files if path.is_file()]:
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            try:
                found = checkpoint.load_member(tmp_path, "faces")
                chex.assert_trees_all_equal(found.variables, intact.variables)
            except (ValueError, FileNotFoundError):
                pass
            path.write_bytes(whole)
    checkpoint.load_member(tmp_path, "faces")


def test_the_command_line(family, tmp_path, capsys):
    def run(*arguments):
        __main__.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    family.save(tmp_path / "a")
    assert "digits" in run("ls", tmp_path / "a")
    assert "kB" in run("save", tmp_path / "a", "digits", tmp_path / "d.safetensors")
    run("save", tmp_path / "a", "digits", tmp_path / "small.safetensors", "--bits", "4")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "d")]
    assert 2 * sizes[0] < sizes[1]
    assert json.loads(run("info", tmp_path / "d.safetensors"))["method"] == "parallel"
    assert json.loads(run("info", tmp_path / "a", "faces"))["method"] == "series"
    with pytest.raises(SystemExit, match=r"no domain 'nobody' in .*\['digits', 'faces'\]"):
        run("info", tmp_path / "a", "nobody")
    backbone = {"name": "resnet26", "width": 0.125}
    assert json.loads(run("info", tmp_path / "a"))["backbone"] == backbone
    assert "numbers added" in run(
        "swap", tmp_path / "a", tmp_path / "d.safetensors", "--name", "numbers"
    )
    with pytest.raises(SystemExit, match="--replace"):
        run("swap", tmp_path / "a", tmp_path / "d.safetensors")
    assert "digits replaced" in run("swap", tmp_path / "a", tmp_path / "d.safetensors", "--replace")
    assert checkpoint.list_members(tmp_path / "a") == ["digits", "faces", "numbers"]
    with pytest.raises(SystemExit, match=r"found platforms \['gpu'\]; expected .*'cuda'"):
        run("export", tmp_path / "a", "digits", tmp_path / "x", "--platforms", "cpu,gpu")
    assert not (tmp_path / "x").exists()
    assert "StableHLO for cpu" in run(
        "export", tmp_path / "a", "digits", tmp_path / "x", "--platforms", "cpu"
    )
    with pytest.raises(SystemExit, match="error: found no shared weights"):
        run("ls", tmp_path / "nowhere")


@pytest.fixture
def merge(digits, faces, tmp_path, capsys):
    """A function that merges: `a` has pictures, digits and faces, `b` pictures and digits."""
    shared = dataclasses.replace(empty_family(NARROW).shared, source="pictures")
    source = member_of(digits, "none", 3, width=NARROW)
    first, faces = (member_of(it, "parallel", 1, width=NARROW) for it in (digits, faces))
    second = member_of(digits, "parallel", 2, width=NARROW)
    for folder, others in (
        ("a", {"digits": first, "faces": faces}),
        ("b", {"digits": second}),
    ):
        family = Family(shared)
        for name, member in {"pictures": source, **others}.items():
            family.add(name, member)
        family.save(tmp_path / folder)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")

    def run(*options, inputs=(a, b), out="c"):
        __main__.main(["merge", *inputs, "--out", str(tmp_path / out), *options])
        assert str(tmp_path / out) in capsys.readouterr().out
        return Family.load(tmp_path / out)

    run.a, run.b = a, b
    return run


def test_merging_and_renaming(merge, tmp_path):
    with pytest.raises(SystemExit, match=f"'digits' is in (.|\n)*--rename {merge.b}:digits=NEW"):
        merge()
    assert not (tmp_path / "c").exists()
    found = merge("--rename", f"{merge.b}:digits=digits_b", "--rename", "faces=people")
    assert found.domains == ["pictures", "digits", "digits_b", "people"]
    a, b = Family.load(merge.a), Family.load(merge.b)
    for ours, (theirs, name) in {
        "digits": (a, "digits"),
        "digits_b": (b, "digits"),
        "people": (a, "faces"),
    }.items():
        chex.assert_trees_all_equal(found.variables(ours), theirs.variables(name))
    with pytest.raises(SystemExit, match="name a new folder"):
        merge("--rename", f"{merge.b}/:digits=digits_b")
    swapped = merge(
        *("--rename", f"{merge.a}:digits=faces", "--rename", f"{merge.a}:faces=digits"),
        inputs=[merge.a],
        out="d",
    )
    chex.assert_trees_all_equal(swapped.variables("faces"), a.variables("digits"))


def test_a_renamed_source_is_the_source(merge):
    found = merge("--rename", "pictures=photos", "--rename", f"{merge.b}:digits=digits_b")
    assert found.shared.source == "photos"
    assert found.domains == ["photos", "digits", "digits_b", "faces"]
    alone = merge("--rename", "digits=numbers", inputs=[merge.b], out="d")
    assert alone.domains == ["pictures", "numbers"]


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ("nobody=x", "no such domain; expected one of .*a:digits, .*b:digits"),
        ("{a}/other:digits=x", "no such domain"),
        ("{b}:faces=x", "no such domain"),
        ("digits=x", "2 such domains; use --rename {a}:digits=NEW or --rename {b}:digits=NEW"),
        ("digits", "expected OLD=NEW or WORKDIR:OLD=NEW"),
        ("=x", "expected OLD=NEW"),
        ("{b}:digits=", "expected OLD=NEW"),
        ("{b}:digits=faces", "'faces' is in .* before it: 'faces' of {a}"),
        ("{b}:digits=../x", "found domain name '../x'"),
        ("{b}:digits=x --rename {b}:digits=y", "two renames of 'digits' of {b}"),
    ],
)
def test_renames_that_cannot_be_meant(rename, message, merge, tmp_path):
    options = f"--rename {rename}".format(a=merge.a, b=merge.b).split()
    with pytest.raises(SystemExit, match=message.format(a=merge.a, b=merge.b)):
        merge(*options)
    assert not (tmp_path / "c").exists()


def test_the_output_is_not_named_first(merge, tmp_path):
    with pytest.raises(SystemExit, match=r"error: found no --out; expected: merge IN... --out OUT"):
        __main__.main(["merge", str(tmp_path / "c"), merge.a, merge.b])
    assert not (tmp_path / "c").exists()


def test_a_smaller_family_by_the_command_line(family, digits, tmp_path, capsys):
    """Rounded, cut and both; what cannot be made smaller is kept."""

    def run(*arguments):
        __main__.main(["compress", str(tmp_path / "a"), *map(str, arguments)])
        return capsys.readouterr().out

    family.save(tmp_path / "a")
    images = whole(digits.splits["test"], range(4))
    said = run("--bits", 4, "--out", tmp_path / "int4")
    assert "kB before" in said
    assert "kept" not in said
    small = Family.load(tmp_path / "int4")
    assert small["faces"].rounding.adapters == 4
    family.load_domain(tmp_path / "int4" / "files" / "digits.safetensors", "rounded")
    np.testing.assert_array_equal(
        family.predict(images, domain="rounded"), small.predict(images, domain="digits")
    )
    family.remove("rounded")
    assert "digits: its norms keep the statistics of the dense adapters" in said
    said = run("--kind", "joint", "--share", 0.25, "--bits", 8, "--out", tmp_path / "joint")
    assert "faces: kept as it is (series)" in said
    joint = Family.load(tmp_path / "joint")
    assert joint["digits"].spec.adapter.kind == "joint"
    assert joint["digits"].rounding.adapters == 8
    assert not (tmp_path / "joint" / "files" / "faces.safetensors").exists()
    before = (tmp_path / "a" / "domains" / "digits" / "card.json").read_text()
    run("--kind", "low_rank", "--domains", "digits", "--out", tmp_path / "low")
    assert Family.load(tmp_path / "low")["digits"].rounding is None
    for wrong, message in (
        (("--out", tmp_path / "none"), "neither --bits nor --kind"),
        (
            ("--bits", 5, "--out", tmp_path / "none"),
            "found bits 5; expected one of",
        ),
        (("--kind", "low_rank", "--share", 0, "--out", tmp_path / "none"), "share"),
        (("--bits", 16, "--out", tmp_path / "none"), "found bits 16"),
        (("--bits", 4, "--share", 0.25, "--out", tmp_path / "none"), "--share 0.25 without --kind"),
        (("--bits", 4, "--out", tmp_path / "low"), "holds a family already"),
        (("--bits", 4, "--domains", "nobody", "--out", tmp_path / "none"), "no domain 'nobody'"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(*wrong)
        assert not (tmp_path / "none" / "domains").exists()
    assert (tmp_path / "a" / "domains" / "digits" / "card.json").read_text() == before


def test_the_domain_that_others_start_from_is_not_swapped(family, tmp_path):
    """Whatever else had its name, new domains would start from that one's norms."""
    shared = dataclasses.replace(family.shared, source="faces")
    Family(shared, [family[name] for name in family]).save(tmp_path / "a")
    family.save_domain("digits", tmp_path / "d.safetensors")
    swap = ["swap", str(tmp_path / "a"), str(tmp_path / "d.safetensors"), "--replace"]
    with pytest.raises(SystemExit, match="found 'faces', the domain that the backbone was trained"):
        __main__.main([*swap, "--name", "faces"])
    __main__.main(swap)
    family.save_domain("faces", tmp_path / "f.safetensors")
    shutil.rmtree(tmp_path / "a" / "domains" / "faces")
    __main__.main(["swap", str(tmp_path / "a"), str(tmp_path / "f.safetensors")])  # it is back
    assert "faces" in Family.load(tmp_path / "a")


def test_a_smaller_family_sees_its_images(family, digits, cache_dir, tmp_path, capsys):
    """Where they are at hand, norms of the smaller domain take their statistics anew."""
    member = dataclasses.replace(
        family["digits"], data=digits.spec, images={"train": len(digits.splits["train"])}
    )
    alone = Family(family.shared, [dataclasses.replace(member, held_out=digits.held_out)])
    alone.save(tmp_path / "a")
    usual = ["compress", str(tmp_path / "a"), "--kind", "low_rank", "--cache", str(cache_dir)]
    for count in (0, 128):
        out = tmp_path / str(count)
        __main__.main([*usual, "--statistics", str(count), "--out", str(out)])
    assert "not at hand" not in capsys.readouterr().out
    mean = "batch_stats/stage1/block1/norm1/mean"
    old, new = (
        trees.flatten(Family.load(tmp_path / it).variables("digits"))[mean] for it in ("0", "128")
    )
    assert not np.allclose(old, new, atol=1e-3)
