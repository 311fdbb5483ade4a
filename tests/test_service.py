"""`radapt serve` as a process: every address, every limit, the page."""

import base64
import concurrent.futures
import dataclasses
import functools
import io
import json
import shutil
import socket
import sys

import asking
import httpx
import numpy as np
import pytest
import schemathesis
from asking import NPY, PNG, WIDTH, check, family_to_serve, npy, png, refused
from conftest import ROOT
from families import member_of, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from playwright.sync_api import sync_playwright

from radapt_jax import Family
from radapt_jax.serve.engine import Answer
from radapt_jax.serve.facts import Facts
from radapt_jax.serve.replies import facts_of, prediction_of

sys.path.append(str(ROOT / "benchmarks"))

from served import TOKEN, Server

LIMITS = ("--batch", 4, "--images", 6, "--waiting", 12, "--body", 400_000, "--pixels", 90_000)


@pytest.fixture(scope="module")
def pixels(digits):
    return whole(digits.splits["test"], range(6))


@pytest.fixture(scope="module")
def family(digits, faces):
    return family_to_serve(digits, faces)


@pytest.fixture(scope="module")
def server(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    family.save(folder / "run")
    with Server(folder / "run", folder / "log", *LIMITS) as server:
        yield server


@pytest.fixture
def file_of(digits, tmp_path):
    return functools.partial(asking.file_of, digits, tmp_path)


def test_every_kind_of_body(server, family, pixels):
    ask = server.client.post
    files = [("images", (f"{k}.png", png(image), "image/png")) for k, image in enumerate(pixels)]
    check(ask("/predict/b?top=3", files=files), family, "b", pixels, 3)
    encoded = {"images": [base64.b64encode(png(image)).decode() for image in pixels[:2]]}
    check(ask("/predict/a", json=encoded), family, "a", pixels[:2], 5)
    check(ask("/predict/c", content=npy(pixels), headers=NPY), family, "c", pixels, 5)
    check(ask("/predict/c", content=npy(pixels[0]), headers=NPY), family, "c", pixels[:1], 5)
    check(ask("/predict/a?top=1", content=png(pixels[0]), headers=PNG), family, "a", pixels[:1], 1)


def test_images_are_cut_as_in_evaluation(server, family):
    photograph = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    found = server.client.post(
        "/predict/a", content=png(photograph), headers={"Content-Type": "image/png"}
    )
    check(found, family, "a", family.preprocess([png(photograph)], domain="a"), 5)


def test_what_is_told_of_domains(server, family):
    found = server.client.get("/domains").json()
    assert found["changeable"]
    assert [it["name"] for it in found["domains"]] == ["a", "b", "c", "source"]
    one = server.client.get("/domains/b").json()
    assert one == found["domains"][1]
    assert one["classes"] == [str(k) for k in range(20)]
    assert one["parameters"] == family["b"].parameters()
    assert one["card"]["method"] == "parallel"
    assert not {"data", "held_out"} & one["card"].keys()
    assert server.client.get("/domains/z").status_code == 404


def test_alive_ready_metrics_and_pages(server, pixels):
    assert server.client.get("/healthz").json() == {"status": "alive"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    server.client.post(
        "/predict/a", content=npy(pixels), headers={"Content-Type": "application/x-npy"}
    )
    text = server.client.get("/metrics").text
    for line in (
        'radapt_requests_total{address="/predict/{domain}",status="200"}',
        'radapt_latency_seconds{quantile="0.99"}',
        'radapt_batch_images_bucket{le="4.0"}',
        'radapt_images_total{domain="a"}',
        'radapt_programs_total{way="mixed"}',
        "radapt_waiting_images 0.0",
    ):
        assert line in text
    assert "radapt_domains 4.0" in text
    page = server.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("page.js", "page.css", "docs", "openapi.json"):
        found = server.client.get(f"/{part}")
        assert found.status_code == 200
    for where in ("/", "/page.js", "/page.css", "/docs"):
        assert "https://" not in server.client.get(where).text, where  # nothing from elsewhere


def test_class_names_that_are_no_text_are_told(family, digits):
    """Names of folders are bytes."""
    domain = dataclasses.replace(digits.domain, classes=tuple(f"\udcff{k}" for k in range(10)))
    member = dataclasses.replace(family["a"], domain=domain)
    facts = Facts.of(member, {**member.card(), "note": ["\ud800"]})
    told = facts_of(facts)
    assert told.classes[:2] == ["\\udcff0", "\\udcff1"]
    assert "ud800" in told.model_dump_json()
    answer = Answer(facts, np.eye(10)[3:4])
    assert prediction_of([answer], 1).images[0][0].name == "\\udcff3"
    assert "udcff3" in prediction_of([answer], 1).model_dump_json()


def header(shape):
    """An array in NumPy's format that has a header alone."""
    stream = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, facts)
    return stream.getvalue()


def test_bodies_that_are_refused(server, pixels):
    def ask(body, kind, name="a"):
        return server.client.post(f"/predict/{name}", content=body, headers={"Content-Type": kind})

    image, array = "image/png", "application/x-npy"
    refused(ask(png(pixels[0]), image, "nobody"), 404, "found no domain 'nobody'", "'source'")
    refused(ask(b"no image", image), 422, "image 0", "expected one of BMP")
    refused(ask(png(pixels[0])[:60], image), 422, "image 0")
    refused(ask(b"{}", "text/plain"), 415, "'text/plain'", "multipart/form-data")
    refused(ask(b"{", "application/json"), 422, "expected")
    refused(server.client.post("/predict/a?top=0"), 422, "found top '0'", "greater than or equal")
    refused(ask(b'{"images": ["%"]}', "application/json"), 422, "base64")
    refused(ask(b'{"images": [], "x": 1}', "application/json"), 422, "expected")
    refused(ask(npy(np.repeat(pixels, 2, 0)), array), 422, "found 12 images; expected 1 to 6")
    refused(ask(npy(pixels[:0]), array), 422, "found 0 images")
    refused(ask(npy(pixels.astype(np.float32)), array), 422, "float32", "expected uint8")
    refused(ask(npy(np.zeros((100_000, 1, 1, 3), np.uint8)), array), 422, "found 100000 images")
    refused(ask(b'{"images": [' + 99_999 * b'"",' + b'""]}', "application/json"), 422, "100000")
    refused(ask(header((0, 2**70, 1, 3)), array), 422, "found 0 images")
    refused(ask(header((1, 2**70, 0, 3)), array), 422, "expected uint8")
    refused(ask(npy(pixels)[:-1], array), 422, "bytes")
    refused(ask(npy(np.asfortranarray(pixels)), array), 422, "C order")
    refused(ask(npy(np.array([{}], object)[:0]), array), 422, "array")
    refused(ask(npy(pixels)[:40] + b"()" * 200, array), 422, "NumPy's format")
    refused(ask(png(np.zeros((301, 300, 3), np.uint8)), image), 422, "300 x 301", "90,000")
    refused(ask(b"", "multipart/form-data"), 422, "form")
    refused(ask(b"--x\r\n", "multipart/form-data; boundary=x"), 422)
    files = [("images", ("x.png", png(pixels[0]), "image/png"))] * 7
    refused(server.client.post("/predict/a", files=files), 422, "Maximum number of files is 6")
    for top in ("0", "x", "1001"):
        found = server.client.post(f"/predict/a?top={top}", content=b"")
        assert found.status_code == 422


def test_bodies_that_are_too_large(server):
    found = server.client.post("/predict/a", content=bytes(400_001), headers=PNG)
    refused(found, 413, "400,001 bytes", "400,000")

    def parts():
        for _ in range(100):
            yield bytes(10_000)

    found = server.client.post("/predict/a", content=parts(), headers=PNG)  # no length is told
    refused(found, 413, "400,000")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /predict/a HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        assert b"413" in connection.recv(1000).split(b"\r\n")[0]


def test_bad_images_leave_the_others_their_answers(server, family, pixels):
    """Requests that come together, of which some cannot be read."""

    def ask(place):
        name = "abc"[place % 3]
        body = png(pixels[place % 6]) if place % 4 else b"bad"
        return name, place, httpx.post(f"{server.url}/predict/{name}", content=body, headers=PNG)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for name, place, found in pool.map(ask, range(48)):
            if place % 4:
                check(found, family, name, pixels[place % 6 : place % 6 + 1], 5)
            else:
                refused(found, 422)


def test_who_may_change_domains(server, file_of):
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"Basic {TOKEN}"}):
        for ask in (httpx.put, httpx.delete):
            found = ask(f"{server.url}/domains/a", headers=headers)
            refused(found, 401, "expected the one")
            assert found.headers["WWW-Authenticate"] == "Bearer"
    odd = {"Authorization": "Bearer ä".encode()}
    assert httpx.delete(f"{server.url}/domains/a", headers=odd).status_code == 401


def test_files_that_are_refused(server, family, file_of, pixels):
    put = server.client.put
    good = file_of(7)
    refused(put("/domains/d", content=b"x"), 422, "the file is no safetensors file")
    refused(put("/domains/d", content=good[:-5]), 422)
    changed = bytearray(good)
    changed[-5] ^= 1
    refused(put("/domains/d", content=bytes(changed)), 422, "damaged")
    other = file_of(7, width=0.125)
    refused(put("/domains/d", content=other), 422, "another network")
    refused(put("/domains/A", content=good), 422, "share a folder")
    assert put("/domains/%2e%2e%2fd", content=good).status_code == 404  # no such address
    refused(put("/domains/a b", content=good), 422, "expected letters")
    refused(server.client.delete("/domains/source"), 409, "trained on")
    refused(put("/domains/source", content=good), 409, "new domains start from its norms")
    refused(server.client.delete("/domains/nobody"), 404)
    assert [it["name"] for it in server.client.get("/domains").json()["domains"]] == sorted(family)


def test_a_domain_comes_changes_and_goes(server, family, file_of, digits, pixels):
    known = Family(family.shared, [])
    for seed, status, done in ((7, 201, "added"), (8, 200, "replaced"), (8, 200, "unchanged")):
        found = server.client.put("/domains/new", content=file_of(seed))
        assert (found.status_code, found.json()["done"]) == (status, done)
        known.add("new", member_of(digits, "parallel", seed, width=WIDTH))
        answer = server.client.post("/predict/new", content=npy(pixels), headers=NPY)
        check(answer, known, "new", pixels, 5)
    found = server.client.put("/domains/new", content=file_of(9, kind="series"))
    assert found.status_code == 200
    known.add("new", member_of(digits, "series", 9, width=WIDTH))
    check(
        server.client.post("/predict/new", content=npy(pixels), headers=NPY),
        known,
        "new",
        pixels,
        5,
    )
    assert server.client.delete("/domains/new").json()["done"] == "deleted"
    refused(server.client.post("/predict/new", content=npy(pixels), headers=NPY), 404)


def test_no_request_is_an_internal_error(server):
    """Requests that schemathesis makes of the OpenAPI description, good and bad, with the token."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    modes = schemathesis.GenerationMode
    seen = []
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.append((operation.method, operation.path))
        for mode in (modes.POSITIVE, modes.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
            def ask(case):
                response = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
                assert response.status_code < 500, (case.as_curl_command(), response.text)

            try:
                ask()
            except Unsatisfiable:  # any text is a name: there is nothing to negate
                assert mode == modes.NEGATIVE
                assert operation.path != "/predict/{domain}"
    assert ("post", "/predict/{domain}") in seen
    assert ("put", "/domains/{name}") in seen
    assert server.client.get("/readyz").status_code == 200


BODIES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda noise: png(np.zeros((8, 8, 3), np.uint8))[:40] + noise),
    st.binary(max_size=60).map(lambda noise: npy(np.zeros((1, 8, 8, 3), np.uint8))[:60] + noise),
    st.recursive(st.none() | st.text() | st.floats(), st.lists).map(
        lambda it: json.dumps({"images": it}).encode()
    ),
)
TYPES = st.sampled_from(
    ["image/png", "application/x-npy", "application/json", "multipart/form-data; boundary=x", ""]
)


@given(BODIES, TYPES)
@settings(max_examples=150, deadline=None)
def test_any_body_of_any_type(server, body, kind):
    found = server.client.post("/predict/a", content=body, headers={"Content-Type": kind})
    assert found.status_code in (200, 413, 415, 422), found.text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(server, family, pixels, tmp_path, width):
    """Images are chosen by keyboard and file, answered by all domains, and fit on the screen."""
    (tmp_path / "five.png").write_bytes(png(pixels[0]))
    (tmp_path / "bad.png").write_bytes(b"no image")
    with sync_playwright() as start:
        browser = start.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": width, "height": 900})
        told = []
        page.on("console", lambda message: told.append(message.text))
        page.on("requestfailed", lambda request: told.append(request.url))
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("#domains tr")
        assert page.locator("#domains tr").count() == 4
        page.keyboard.press("Tab")  # the addresses
        assert page.evaluate("document.activeElement.getAttribute('href')") == "docs"
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "domain"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        page.set_input_files("#files", [tmp_path / "five.png"])
        page.wait_for_selector("#status:has-text('4 answers in')")
        found = page.locator("#answers article").first
        assert found.locator("h3").all_inner_texts() == ["a", "b", "c", "source"]
        best = family.predict(pixels[:1], domain="b")[0].max()
        shown = found.locator(".found section").nth(1).locator(".guess").first.inner_text()
        assert f"{100 * best:.1f} %" in shown
        meters = found.locator("meter")
        assert meters.count() == 3 + 3 + 2 + 3
        assert found.locator("img").evaluate("it => it.naturalWidth") == 16
        assert told == []
        page.select_option("#domain", "c")
        for count in (2, 3):  # the same file, again and again
            page.set_input_files("#files", [tmp_path / "five.png"])
            page.wait_for_selector("#status:has-text('1 answers in')")
            assert page.locator("#answers article").count() == count
        page.set_input_files("#files", [tmp_path / "bad.png"])
        page.wait_for_selector("text=422: image 0")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(url.startswith((server.url, "blob:", "data:")) for url in asked), asked
        page.goto(f"{server.url}/docs")
        page.get_by_text("/predict/{domain}").first.wait_for()
        browser.close()
