"""A plain PyTorch service to measure against: one merged network a domain, one image a request.

    python benchmarks/peer_service.py FOLDER PORT

It is what is written in an afternoon: FastAPI and uvicorn as in `radapt serve`, Pillow, and a
network for each npz file of the folder (variables by path, `classes.json` beside them). Needs
PyTorch, fastapi, uvicorn, httptools and pillow; JAX is not needed.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from peer_torch import Network
from PIL import Image
from starlette.concurrency import run_in_threadpool

MEAN, STD = 0.5, 0.25  # of every domain of benchmarks/service.py


def read(path, width):
    """Return a domain's network and the sha256 of its file."""
    arrays = dict(np.load(path))
    network = Network(arrays["adapters/head/bias"].size, width, "none").load(arrays).eval()
    return network, hashlib.sha256(path.read_bytes()).hexdigest()


def main(folder, port):
    torch.set_num_threads(1)  # requests run side by side; more threads each slow all of them down
    facts = json.loads((folder / "facts.json").read_text())
    networks = {path.stem: read(path, facts["width"]) for path in sorted(folder.glob("*.npz"))}
    app = FastAPI()

    def classify(name, body, top):
        network, version = networks[name]
        with Image.open(io.BytesIO(body)) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
        images = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found = torch.softmax(network(images.float())[0], 0)
        best = torch.argsort(found, descending=True)[:top]
        guesses = [{"name": str(int(k)), "probability": float(found[k])} for k in best]
        return {"domain": name, "sha256": version, "images": [guesses]}

    @app.get("/readyz")
    async def ready():
        return {"status": "ready"}

    @app.post("/predict/{name}")
    async def predict(name: str, request: Request, top: int = 5):
        return await run_in_threadpool(classify, name, await request.body(), top)

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
