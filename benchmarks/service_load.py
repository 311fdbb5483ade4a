"""Load for a service, from a process of its own: threads that each ask, wait and check.

    python benchmarks/service_load.py < job.json

The job has `url`, `seconds`, `connections`, `images` (base64), `domains` and `top`; and `expected`,
by domain and version (or domain alone, with "*"), the most probable class of each image and its
probability. Prints what was seen as JSON: the milliseconds of every answer, and what was wrong.
Standard library only, so that it takes little from the service.
"""

import base64
import http.client
import itertools
import json
import sys
import threading
import time
from urllib.parse import urlsplit

CLOSE = 1e-4  # between probabilities


def agrees(status, body, domain, place, expected):
    """Whether an answer is that of the version it names."""
    if status != 200:
        return False
    told = json.loads(body)
    versions = expected[domain]
    row = versions.get(told["sha256"], versions.get("*"))
    if row is None or told["domain"] != domain:
        return False
    (best, *_), (name, probability) = told["images"][0], row[place]
    near = abs(best["probability"] - probability) <= CLOSE
    return near and (best["name"] == name or probability < 0.5 + CLOSE)


def ask(job, worker, until, took, wrong):
    """Ask until the time is up: a domain and an image after the other."""
    images = [base64.b64decode(it) for it in job["images"]]
    connection = http.client.HTTPConnection(urlsplit(job["url"]).netloc, timeout=120)
    headers = {"Content-Type": "image/png"}
    for turn in itertools.count(worker * 7919):
        if time.monotonic() > until:
            break
        domain, place = job["domains"][turn % len(job["domains"])], turn % len(images)
        start = time.perf_counter()
        try:
            path = f"/predict/{domain}?top={job['top']}"
            connection.request("POST", path, images[place], headers)
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            wrong.append(f"{domain}: no answer, {error!r}")
            connection.close()
            continue
        took.append(1000 * (time.perf_counter() - start))
        if not agrees(response.status, body, domain, place, job["expected"]):
            wrong.append(f"{domain}, image {place}: {response.status} {body[:300]!r}")
    connection.close()


def main():
    job = json.load(sys.stdin)
    took, wrong, began = [], [], time.monotonic()
    until = began + job["seconds"]
    threads = [
        threading.Thread(target=ask, args=(job, worker, until, took, wrong))
        for worker in range(job["connections"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"ms": took, "wrong": wrong, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
