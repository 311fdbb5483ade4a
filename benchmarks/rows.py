"""What is measured: the rows of the tables, what each trains, and on how much."""

import numpy as np

CLASSES = 100
IMAGENET = 1_232_167  # training images of the decathlon's imagenet12
DECAY = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}
TRAINING = {  # kind of adapter, and what is decayed otherwise than above; None freezes
    "parallel": ("parallel", {}),
    "series": ("series", {}),
    "finetune": ("none", {"filters": 5e-4}),
    "norm": ("none", {"adapters": None}),
    "linear": ("none", {"adapters": None, "norms": None}),
}
INFERENCE = {"backbone": "none", "parallel, unfolded": "parallel", "parallel, folded": "parallel"}
KEPT, VIEWS, EPOCHS = "train linear, kept features", 8, 20  # views of an image, seen so often
FOLDED = "infer parallel, folded"
# Rows that are the very same computation as another, which is measured once.
SAME = {"train finetune": "train scratch"}
ROWS = (
    *(f"train {name}" for name in TRAINING),
    KEPT,
    *(f"infer {name}" for name in INFERENCE),
)


def setup_of(row):
    """Return what a row asks of ours: kind of adapter, decay (None: inference), folded or not."""
    if row == KEPT:
        return {**setup_of("train linear"), "kept": True}
    job, name = row.split(" ", 1)
    if job == "infer":
        return {"kind": INFERENCE[name], "decay": None, "folded": row == FOLDED}
    kind, changes = TRAINING[name]
    return {"kind": kind, "decay": {**DECAY, **changes}, "folded": False}


def save_images(folder, batch, size):
    """Write uniform noise, the same for ours and the peer; return where it is."""
    stream = np.random.default_rng(0)
    paths = {name: str(folder / f"{name}{batch}.npy") for name in ("images", "labels")}
    np.save(paths["images"], stream.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
    np.save(paths["labels"], stream.integers(0, CLASSES, batch).astype(np.int32))
    return paths
