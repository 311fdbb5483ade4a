"""What is behind `radapt serve`, without HTTP: plans, rows, answers and the queue."""

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from families import empty_family, member_of, of_classes, whole
from hypothesis import given
from hypothesis import strategies as st

from radapt_jax.family import adapter_file, checkpoint
from radapt_jax.serve import alone
from radapt_jax.serve.batcher import Batcher
from radapt_jax.serve.engine import Engine, Question, sizes
from radapt_jax.serve.facts import Facts, read_facts
from radapt_jax.serve.plan import cuts, plan
from radapt_jax.serve.store import Store

WIDTH = 0.0625
MOST = 4


def facts_of(family):
    return {name: Facts.of(family[name], family[name].card()) for name in family}


def same(answer, family, name, images):
    assert answer.facts.name == name
    assert answer.facts.version == family[name].card()["sha256"]
    expected = family.predict(images, domain=name)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


@given(
    st.dictionaries(st.integers(1, 9), st.floats(0.1, 10), min_size=1, max_size=4),
    st.integers(0, 12),
)
def test_the_cheapest_cut(seconds, most):
    """No other choice of programs is cheaper; those chosen have room for every image."""

    def least(count):
        if count <= 0:
            return 0.0
        return min(took + least(count - size) for size, took in seconds.items())

    found = cuts(seconds, most)
    assert len(found) == most + 1
    for count, cut in enumerate(found):
        assert sum(cut.sizes) >= count
        assert cut.seconds == pytest.approx(sum(seconds[size] for size in cut.sizes))
        assert cut.seconds == pytest.approx(least(count))


def test_what_is_computed_alone():
    alone = cuts({1: 1.0, 4: 2.0}, 8)
    mixed = cuts({1: 1.5, 4: 3.0}, 8)
    many = dict.fromkeys("abcd", 1)
    assert plan(many, alone, mixed, {}).mixed == ("a", "b", "c", "d")  # 3 rather than 4 times 1
    assert plan({"a": 4, "b": 1}, alone, mixed, {}).alone == ("a", "b")  # 3 rather than 4.5
    assert plan({"a": 4, "b": 1}, alone, mixed, {"a": 5}).mixed == ("a", "b")  # it is not folded
    assert plan({"a": 4, **dict.fromkeys("bcde", 1)}, alone, mixed, {}).alone == ("a",)
    assert plan(many, alone, None, {"a": 9}).alone == ("a", "b", "c", "d")


def test_sizes_of_batches():
    assert sizes(64) == (1, 4, 16, 64)
    assert sizes(20) == (1, 4, 16, 20)
    assert sizes(1) == (1,)


@pytest.fixture
def family(digits, faces):
    """Domains of several kinds and class counts, some of which cannot be mixed."""
    family = empty_family(WIDTH)
    for seed, (name, data) in enumerate((("a", digits), ("b", of_classes(digits, 20)))):
        family.add(name, member_of(data, "parallel", seed, width=WIDTH))
    family.add("c", member_of(faces, "parallel", 3, width=WIDTH))
    family.add("own", member_of(digits, "none", 4, width=WIDTH, own_weights=True))
    return family


def test_answers_are_those_of_the_family(family, digits):
    pixels = whole(digits.splits["test"], range(MOST))
    engine = Engine(family, facts_of(family), MOST)
    engine.start()
    batches = [["a"], ["a", "b", "c"], ["own", "a"], ["c", "own", "own", "b"], ["b", "b", "b", "b"]]
    for names in batches:
        asked = [Question(name, pixels[k : k + 1]) for k, name in enumerate(names)]
        for question, answer in zip(asked, engine.answer(asked), strict=True):
            same(answer, family, question.domain, question.images)
    several = [Question("a", pixels[:3]), Question("c", pixels[3:])]
    for question, answer in zip(several, engine.answer(several), strict=True):
        same(answer, family, question.domain, question.images)
    assert engine.used["alone"]


@pytest.mark.parametrize("way", ["alone", "mixed"])
def test_both_ways_give_the_same(family, digits, way):
    """Whatever is measured, answers do not depend on the way that is chosen."""
    pixels = whole(digits.splits["test"], range(3))
    engine = Engine(family, facts_of(family), MOST)
    engine.start()
    for programs in engine._programs.values():
        dear, cheap = cuts(dict.fromkeys(sizes(MOST), 9.0), MOST), cuts({4: 1e-9}, MOST)
        programs.alone_cuts = cheap if way == "alone" else dear
        programs.mixed_cuts = programs.mixed_cuts and (dear if way == "alone" else cheap)
    asked = [Question(name, pixels[k : k + 1]) for k, name in enumerate("abc")]
    for question, answer in zip(asked, engine.answer(asked), strict=True):
        same(answer, family, question.domain, question.images)
    assert list(engine.used) == [way]


def test_a_domain_is_put_replaced_and_removed(family, digits):
    pixels = whole(digits.splits["test"], range(2))
    engine = Engine(family, facts_of(family), MOST)
    engine.start()
    newer = member_of(digits, "parallel", 9, width=WIDTH)
    wide = member_of(of_classes(digits, 70), "parallel", 10, width=WIDTH)  # wider than all heads
    other = member_of(digits, "series", 11, width=WIDTH)  # of a kind that has no programs
    for name, member in (("a", newer), ("wide", wide), ("other", other)):
        named = family.fitted(name, member)
        ready = engine.prepare(named, Facts.of(named, named.card()))
        assert (ready.programs is None) == (name == "a")
        before = family.predict(pixels, domain="a")
        np.testing.assert_allclose(
            engine.answer([Question("a", pixels)])[0].probabilities, before, atol=1e-5
        )
        engine.put(ready)
        for domain in ("a", "b", name):
            same(engine.answer([Question(domain, pixels)])[0], family, domain, pixels)
    engine.remove("b")
    with pytest.raises(KeyError):
        engine.answer([Question("b", pixels)])
    same(engine.answer([Question("a", pixels)])[0], family, "a", pixels)


def test_what_does_not_fit_changes_nothing(family, digits):
    engine = Engine(family, facts_of(family), MOST)
    stranger = member_of(digits, "parallel", 1, width=0.125)
    with pytest.raises(ValueError, match="another network"):
        engine.prepare(stranger, Facts.of(stranger, stranger.card()))
    broken = member_of(digits, "parallel", 1, width=WIDTH)
    broken.variables["adapters"]["head"]["bias"][0] = np.nan
    with pytest.raises(ValueError, match="head/bias; expected finite"):
        engine.prepare(broken, Facts.of(broken, broken.card()))
    assert set(engine._facts) == {"a", "b", "c", "own"}


def test_domains_that_are_read_when_they_are_asked_for(family, digits, tmp_path):
    """More domains than rows: rows go to those that are asked for."""
    for seed in range(12):
        family.add(f"d{seed}", member_of(digits, "parallel", seed + 20, width=WIDTH))
    family.save(tmp_path)
    pixels = whole(digits.splits["test"], range(1))
    held = type(family).load(tmp_path, at_most=2)
    engine = Engine(held, facts_of(family), MOST)
    engine.start()
    for first in range(0, 12, 4):
        asked = [Question(f"d{first + k}", pixels) for k in range(4)]
        for question, answer in zip(asked, engine.answer(asked), strict=True):
            same(answer, family, question.domain, pixels)
    other = family.fitted("d0", member_of(digits, "parallel", 40, width=WIDTH))
    checkpoint.save_member(other, tmp_path)  # by another process
    with pytest.raises(ValueError, match=r"d0': found sha256 .* as when the server started"):
        engine.answer([Question("d0", pixels)])


def test_more_domains_apart_than_folds_in_memory(family, digits, monkeypatch):
    """One of a batch may take the place of the next one, which is folded again."""
    monkeypatch.setattr(alone, "MOST_BYTES", 1)
    engine = Engine(family, facts_of(family), 4, mix=False)
    engine.start()
    pixels = whole(digits.splits["test"], range(1))
    for asked in ("a", "ab", "ba"):
        questions = [Question(name, pixels) for name in asked]
        for question, answer in zip(questions, engine.answer(questions), strict=True):
            same(answer, family, question.domain, pixels)


def test_facts_are_of_what_is_in_memory(family, digits, tmp_path):
    """A training may write between the reading of the domains and that of the facts."""
    family.save(tmp_path)
    held = type(family).load(tmp_path)
    for name in ("a", "late"):
        other = family.fitted(name, member_of(digits, "parallel", 50, width=WIDTH))
        checkpoint.save_member(other, tmp_path)
    found = read_facts(held, tmp_path)
    assert {name: it.version for name, it in found.items()} == {
        name: family[name].card()["sha256"] for name in family
    }
    assert set(read_facts(type(family).load(tmp_path, ["b"], at_most=1), tmp_path)) == {"b"}


def test_a_damaged_domain_is_kept_as_it_is(family, digits, tmp_path):
    family.save(tmp_path)
    card = tmp_path / "domains" / "a" / "card.json"
    card.write_text("{")
    store, version = Store(tmp_path), family["a"].card()["sha256"]
    assert not store.holds("a", version)
    store.put(family["a"])
    assert store.holds("a", version)
    (kept,) = (tmp_path / "removed").iterdir()
    assert (kept / "card.json").read_text() == "{"
    assert (kept / "variables").is_dir()


def test_a_domain_that_is_replaced_is_kept_as_it_was_on_disk(family, digits, tmp_path):
    """Of the one that is served, and of one that another process has written since."""
    family.save(tmp_path)
    store = Store(tmp_path)
    newer, newest = (
        family.fitted("a", member_of(digits, "parallel", seed, width=WIDTH)) for seed in (30, 31)
    )
    served = family["a"]
    store.put(newer)
    store.put(newest)  # the family still serves the first
    kept = [adapter_file.read(path) for path in (tmp_path / "removed").iterdir()]
    found = {it.card()["sha256"] for it in kept}
    assert found == {served.card()["sha256"], newer.card()["sha256"]}
    named = dataclasses.replace(newest.domain, classes=tuple(f"n{it}" for it in range(10)))
    store.put(dataclasses.replace(newest, domain=named))
    store.put(newest)  # the same variables under other class names: both are kept
    store.remove("a")
    assert len(list((tmp_path / "removed").iterdir())) == 4
    assert "a" not in checkpoint.list_members(tmp_path)


class Echo:
    """Answers with the questions themselves, slowly, and remembers its batches."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()
        self.go.set()

    def __call__(self, questions):
        self.go.wait(5)
        self.batches.append([it.domain for it in questions])
        if len(questions) > 1 and any(it.domain == "bad" for it in questions):
            raise RuntimeError("one of many")
        if questions[0].domain == "bad":
            raise ValueError("bad alone")
        return [it.domain for it in questions]


def question(name, count=1):
    return Question(name, np.zeros((count, 2, 2, 3), np.uint8))


def queued(test, **options):
    """Run a test with a batcher around an `Echo`."""

    async def run():
        echo = Echo()
        batcher = Batcher(echo, **{"most": 4, "wait": 0.05, **options})
        batcher.start()
        try:
            await asyncio.wait_for(test(echo, batcher), 20)
        finally:
            echo.go.set()
            await batcher.stop()

    asyncio.run(run())


def test_questions_gather_until_the_batch_is_full():
    async def test(echo, batcher):
        asked = [batcher.ask(question(name)) for name in "abcdef"]
        assert await asyncio.gather(*asked) == list("abcdef")
        assert echo.batches == [list("abcd"), list("ef")]

    queued(test)


def test_a_question_waits_for_others_only_so_long():
    async def test(echo, batcher):
        assert await batcher.ask(question("a")) == "a"
        assert echo.batches == [["a"]]

    queued(test)


def test_a_question_waits_only_where_others_came():
    """A minute, that is; the test would not have the time for it."""

    async def test(echo, batcher):
        assert await batcher.ask(question("full", 4)) == "full"
        assert await batcher.ask(question("a")) == "a"
        echo.go.clear()
        asked = [batcher.ask(question(name)) for name in "bcd"]
        await asyncio.sleep(0)
        echo.go.set()
        await asyncio.gather(*asked)
        assert len(echo.batches[-1]) > 1
        waits = batcher.ask(question("e"))
        assert not (await asyncio.wait([waits], timeout=0.1))[0]
        await batcher.ask(question("f", 3))
        assert echo.batches[-1] == ["e", "f"]
        assert await waits == "e"

    queued(test, wait=60)


def test_what_does_not_fit_waits_for_the_next_batch():
    async def test(echo, batcher):
        asked = [batcher.ask(question(name, 3)) for name in "ab"]
        await asyncio.gather(*asked)
        assert echo.batches == [["a"], ["b"]]

    queued(test)


def test_a_bad_question_leaves_the_others_their_answers():
    async def test(echo, batcher):
        asked = [batcher.ask(question(name)) for name in ("a", "bad", "c")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (found[0], found[2]) == ("a", "c")
        assert str(found[1]) == "bad alone"
        assert await batcher.ask(question("d")) == "d"

    queued(test)


def test_a_change_is_between_what_was_asked_before_and_after():
    async def test(echo, batcher):
        order = []
        before = batcher.ask(question("a"))  # queued at once, and so before the change
        changed = batcher.change(lambda: order.append(list(echo.batches)) or "changed")
        after = batcher.ask(question("b"))
        assert await asyncio.gather(before, changed, after) == ["a", "changed", "b"]
        assert order == [[["a"]]]
        assert echo.batches == [["a"], ["b"]]
        with pytest.raises(ZeroDivisionError):
            await batcher.change(lambda: 1 / 0)

    queued(test)


def test_who_is_gone_is_not_answered():
    async def test(echo, batcher):
        echo.go.clear()
        first = batcher.ask(question("first", 4))
        gone, stays = (batcher.ask(question(it)) for it in ("gone", "stays"))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.sleep(0)
        echo.go.set()
        assert await asyncio.gather(first, stays) == ["first", "stays"]
        assert echo.batches == [["first"], ["stays"]]

    queued(test)


def test_stopping_answers_what_waits():
    async def run():
        echo = Echo()
        batcher = Batcher(echo, most=2, wait=0.5)
        batcher.start()
        asked = [batcher.ask(question(name)) for name in "abcde"]
        await asyncio.sleep(0)
        await batcher.stop()
        assert await asyncio.gather(*asked) == list("abcde")

    asyncio.run(run())


def test_facts_keep_back_where_images_are(digits):
    member = member_of(digits, "parallel", 1, width=WIDTH)
    found = Facts.of(member, member.card())
    assert not {"data", "held_out"} & found.public().keys()
    larger = dataclasses.replace(member.domain, resize=24)
    assert not found.sees_as(dataclasses.replace(found, domain=larger))
