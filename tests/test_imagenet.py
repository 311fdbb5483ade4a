"""The names of ImageNet's classes."""

from radapt_jax.convert.imagenet import imagenet_classes


def test_there_are_a_thousand_names_in_label_order():
    names = imagenet_classes()
    assert len(set(names)) == 1000
    assert [names[label] for label in (0, 134, 281, 517, 999)] == [
        *("tench", "crane, bird", "tabby", "crane, machine", "toilet tissue")
    ]
    assert all(name == name.strip() and name for name in names)
    assert imagenet_classes(200) is None
