"""What is written is what is read; what is damaged or foreign is refused."""

import dataclasses
import json

import chex
import jax
import numpy as np
import optax
import pytest
from families import network
from orbax.checkpoint import v1 as ocp

from radapt_jax import ResNet26, Shared, initial_variables
from radapt_jax.family import checkpoint
from radapt_jax.family.member import Member
from radapt_jax.train import optim
from radapt_jax.train.checkpoints import TrainingCheckpoints
from radapt_jax.train.step import TrainState
from radapt_jax.utils import trees

SPEC = network("parallel", width=0.125, init="he_normal")


@pytest.fixture(scope="module")
def variables():
    return initial_variables(SPEC, 10, seed=0)


@pytest.fixture
def member(digits, variables):
    own = {key: variables[key] for key in ("adapters", "batch_stats")}
    return Member(
        digits.domain,
        SPEC,
        own,
        method="parallel",
        shared=trees.fingerprint(variables["params"]),
        data=digits.spec,
        images={"train": 1167},
        results={"val": 12.5},
    )


def test_shared_weights_round_trip(variables, tmp_path):
    shared = Shared(variables["params"], ResNet26(0.125), "pictures", "series")
    checkpoint.save_shared(shared, tmp_path)
    found = checkpoint.load_shared(tmp_path)
    chex.assert_trees_all_equal(found.params, shared.params)
    assert dataclasses.replace(found, params={}) == dataclasses.replace(shared, params={})
    with pytest.raises(FileNotFoundError, match="shared weights"):
        checkpoint.load_shared(tmp_path / "elsewhere")


def test_members_round_trip(member, tmp_path):
    checkpoint.save_member(member, tmp_path)
    checkpoint.save_member(member, tmp_path)  # replaces
    assert checkpoint.list_members(tmp_path) == ["digits"]
    found = checkpoint.load_member(tmp_path, "digits")
    chex.assert_trees_all_equal(found.variables, dict(member.variables))
    assert dataclasses.replace(found, variables={}) == dataclasses.replace(member, variables={})
    assert {path.name for path in (tmp_path / "domains").iterdir()} == {"digits"}
    restored = ocp.load(tmp_path / "domains" / "digits" / "variables")  # plain Orbax
    chex.assert_trees_all_equal(trees.to_numpy(restored), dict(member.variables))
    with pytest.raises(FileNotFoundError, match=r"svhn.*digits"):
        checkpoint.load_member(tmp_path, "svhn")


def test_another_width_or_class_count_is_refused_with_both_sides(member, tmp_path):
    checkpoint.save_member(member, tmp_path)
    path = tmp_path / "domains" / "digits" / "card.json"
    card = json.loads(path.read_text())
    wider = {**card["network"], "backbone": {"name": "resnet26", "width": 0.25}}
    path.write_text(json.dumps({**card, "network": wider}))
    with pytest.raises(ValueError, match=r"head/kernel: found \(32, 10\).*expected \(64, 10\)"):
        checkpoint.load_member(tmp_path, "digits")
    classes = [*card["domain"]["classes"], "ten"]
    path.write_text(json.dumps({**card, "domain": {**card["domain"], "classes": classes}}))
    with pytest.raises(ValueError, match=r"head/kernel: found \(32, 10\).*expected \(32, 11\)"):
        checkpoint.load_member(tmp_path, "digits")
    path.write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        checkpoint.load_member(tmp_path, "digits")


def test_changed_values_are_refused(member, tmp_path):
    checkpoint.save_member(member, tmp_path)
    other = trees.to_numpy(member.variables)
    other["adapters"]["head"]["bias"][3] += 1e-7
    ocp.save(tmp_path / "domains" / "digits" / "variables", other, overwrite=True)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load_member(tmp_path, "digits")


@pytest.mark.parametrize("name", ["digits.old", "digits.new"])
def test_a_name_that_looks_like_a_leftover(name, member, tmp_path):
    named = dataclasses.replace(member, domain=dataclasses.replace(member.domain, name=name))
    checkpoint.save_member(named, tmp_path)
    checkpoint.clean(tmp_path)
    assert checkpoint.list_members(tmp_path) == [name]
    assert checkpoint.load_member(tmp_path, name).domain == named.domain
    assert checkpoint.read_member_card(tmp_path, name)[1].domain == named.domain


def test_a_killed_save_leaves_the_old_one(member, tmp_path, monkeypatch):
    checkpoint.save_member(member, tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "card_text", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save_member(member, tmp_path)
    assert checkpoint.list_members(tmp_path) == ["digits"]
    checkpoint.load_member(tmp_path, "digits")
    checkpoint.save_member(member, tmp_path)
    assert {path.name for path in (tmp_path / "domains").iterdir()} == {"digits"}


def test_a_kill_between_the_renames_loses_nothing(member, tmp_path):
    checkpoint.save_member(member, tmp_path)
    folder = tmp_path / "domains"
    (folder / "digits").rename(folder / ".digits.old")
    assert checkpoint.list_members(tmp_path) == ["digits"]
    checkpoint.load_member(tmp_path, "digits")
    checkpoint.save_member(member, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"digits"}


def make_state(variables, decay):
    labels = optim.labels({key: variables[key] for key in ("params", "adapters")}, decay, SPEC.kind)
    optimizer = optim.make_optimizer(labels, decay, optax.constant_schedule(0.1))
    return TrainState.create(variables, optimizer, jax.devices()[:1])


@pytest.mark.parametrize("filters", [None, 1e-4], ids=["frozen", "trained"])
def test_training_states_round_trip(filters, variables, tmp_path):
    decay = {"filters": filters, "adapters": 0.0, "norms": 0.0, "head": None}
    state = make_state(variables, decay)
    moved = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, state)
    frozen = ("params",) if filters is None else ()
    if frozen:
        moved = moved.replace(params=state.params)
    with TrainingCheckpoints(tmp_path, frozen) as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(7, moved, 50.0, {})
    with TrainingCheckpoints(tmp_path, frozen) as checkpoints:
        assert checkpoints.latest == 7
        found = checkpoints.load(7, state)
        assert jax.tree.structure(found) == jax.tree.structure(moved)
        chex.assert_trees_all_equal(found, moved)
        with pytest.raises(ValueError, match="training state"):
            checkpoints.load(7, make_state(initial_variables(SPEC, 11, seed=0), decay))
    saved = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert (saved < 4 * trees.count(variables["params"])) == bool(frozen)


def test_latest_and_best_are_kept(variables, tmp_path):
    decay = {"filters": None, "adapters": None, "norms": None, "head": 0.0}
    state = make_state(variables, decay)
    with TrainingCheckpoints(tmp_path, ("params",)) as checkpoints:
        for step, top1 in ((10, 20.0), (20, 60.0), (30, 60.0), (40, 30.0), (50, 10.0)):
            checkpoints.save(step, state, top1, {})
        assert (checkpoints.latest, checkpoints.best) == (50, 30)
    (tmp_path / "60.orbax-checkpoint-tmp").mkdir()  # as a kill leaves it
    with TrainingCheckpoints(tmp_path, ("params",)) as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (50, 30)
        assert checkpoints.top1() == {30: 60.0, 40: 30.0, 50: 10.0}
    assert not list(tmp_path.glob("*tmp*"))
