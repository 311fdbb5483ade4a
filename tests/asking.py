"""What tests of `radapt serve` share: a family, files, bodies of requests, checks of answers."""

import io

import numpy as np
from families import empty_family, member_of, of_classes
from PIL import Image

WIDTH = 0.0625
NPY, PNG = {"Content-Type": "application/x-npy"}, {"Content-Type": "image/png"}


def family_to_serve(digits, faces):
    """Domains of ten, twenty and fewer classes, and the source domain."""
    family = empty_family(WIDTH)
    family.add("a", member_of(digits, "parallel", 1, width=WIDTH))
    family.add("b", member_of(of_classes(digits, 20), "parallel", 2, width=WIDTH))
    family.add("c", member_of(faces, "parallel", 3, width=WIDTH))
    family.add("source", member_of(digits, "none", 4, width=WIDTH))
    family.shared = family.shared.__class__(
        family.shared.params, family.shared.backbone, source="source"
    )
    return family


def file_of(digits, folder, seed, width=WIDTH, kind="parallel"):
    """The bytes of an adapter file, of a domain from a seed."""
    family = empty_family(width)
    family.add("digits", member_of(digits, kind, seed, width=width))
    family.save_domain("digits", folder / "file")
    return (folder / "file").read_bytes()


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def npy(images):
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()


def check(response, family, name, images, top):
    """Check an answer to images as they were sent against the family's own."""
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["domain"] == name
    assert found["sha256"] == family[name].card()["sha256"]
    expected = family.predict(family.preprocess(list(images), domain=name), domain=name)
    assert len(found["images"]) == len(images)
    classes = family[name].domain.classes
    for guesses, row in zip(found["images"], expected, strict=True):
        assert len(guesses) == min(top, len(classes))
        best = sorted(row, reverse=True)[:top]
        np.testing.assert_allclose([it["probability"] for it in guesses], best, atol=1e-5)
        for it in guesses:
            place = classes.index(it["name"])
            np.testing.assert_allclose(it["probability"], row[place], atol=1e-5)


def refused(response, status, *words):
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    for word in words:
        assert word in detail, detail
