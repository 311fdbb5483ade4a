"""The same network in plain PyTorch, as a peer to measure against; driven by benchmarks/train.py.

It is a process of its own, so that PyTorch may live in another environment: requests come as JSON
lines on stdin, answers go as JSON lines to stdout.

    {"do": "setup", ...}    build a network from our variables (an npz file) and a batch of images
    {"do": "logits", "train": false}    what it says of the images
    {"do": "run", "n": 3}   seconds of each of n training or inference steps
    {"do": "peak"}          bytes: of device memory on a GPU, else of this process

Needs PyTorch 2 (`pip install torch==2.13.0`); JAX is not needed.
"""

from collections import OrderedDict

import numpy as np
import torch
import worker
from torch import nn
from torch.nn import functional as F

STAGES = (64, 128, 256)
BLOCKS = 4


class Conv(nn.Module):
    """A 3x3 convolution with a parallel or series adapter, or none."""

    def __init__(self, inputs, outputs, stride, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        if kind == "parallel":
            self.adapter = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        if kind == "series":
            self.adapter_norm = nn.BatchNorm2d(outputs)
            self.adapter = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "parallel":
            return y + self.adapter(x)
        if self.kind == "series":
            return y + self.adapter(self.adapter_norm(y))
        return y


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, kind):
        super().__init__()
        self.conv1, self.norm1 = Conv(inputs, outputs, stride, kind), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = Conv(outputs, outputs, 1, kind), nn.BatchNorm2d(outputs)
        self.more = outputs - inputs

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.more:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.more))
        return F.relu(y + x)


class Network(nn.Module):
    """ResNet-26 of the papers, with the names of our variables."""

    def __init__(self, classes, width, kind):
        super().__init__()
        stem, *channels = (round(count * width) for count in (32, *STAGES))
        self.stem, self.stem_norm = Conv(3, stem, 1, kind), nn.BatchNorm2d(stem)
        for index, (inputs, outputs) in enumerate(zip([stem, *channels], channels, strict=False)):
            blocks = {
                f"block{place + 1}": Block(
                    inputs if place == 0 else outputs, outputs, 2 if place == 0 else 1, kind
                )
                for place in range(BLOCKS)
            }
            setattr(self, f"stage{index + 1}", nn.Sequential(OrderedDict(blocks)))
        self.norm, self.head = nn.BatchNorm2d(channels[-1]), nn.Linear(channels[-1], classes)

    def forward(self, x):
        x = self.stem_norm(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(F.relu(self.norm(x)).mean((2, 3)))

    def load(self, variables):
        """Take our variables: by path, as NumPy arrays."""
        for path, value in variables.items():
            _, *names, leaf = path.split("/")
            if leaf == "kernel" and names[-1] == "adapter":
                weight, value = self.get_submodule(".".join(names)).weight, value.T[..., None, None]
            elif leaf == "kernel" and names[-1] == "head":
                weight, value = self.head.weight, value.T
            elif leaf == "kernel":
                weight = self.get_submodule(".".join(names)).conv.weight
                value = value.transpose(3, 2, 0, 1)
            else:
                module = ".".join(names).replace("adapter.norm", "adapter_norm")
                own = {"scale": "weight", "mean": "running_mean", "var": "running_var"}
                weight = getattr(self.get_submodule(module), own.get(leaf, leaf))
            with torch.no_grad():
                weight.copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return self


TRAINED = {  # which parameters a method trains
    "scratch": lambda name: True,
    "finetune": lambda name: True,
    "linear": lambda name: name.startswith("head"),
    "norm": lambda name: "norm" in name or name.startswith("head"),
    "parallel": lambda name: ".conv.weight" not in name,
    "series": lambda name: ".conv.weight" not in name,
}


class Peer:
    def setup(self, weights, images, labels, kind, method, width, classes, **how):
        torch.backends.cudnn.benchmark = True
        device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = torch.channels_last if how["channels_last"] else torch.contiguous_format
        self.network = Network(classes, width, kind).load(dict(np.load(weights)))
        self.network = self.network.to(device, memory_format=layout)
        pixels = torch.from_numpy(np.load(images).astype(np.float32) / 255)
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        self.images = pixels.to(device, memory_format=layout)
        self.labels = torch.from_numpy(np.load(labels)).long().to(device)
        self.amp = torch.autocast(device, torch.bfloat16, enabled=how["bfloat16"])
        self.forward = torch.compile(self.network) if how["compile"] else self.network
        self.optimizer = None
        if method in TRAINED:
            trained = []
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(TRAINED[method](name))
                trained += [parameter] if parameter.requires_grad else []
            self.optimizer = torch.optim.SGD(trained, 1e-4, momentum=0.9, weight_decay=5e-4)
        return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}

    def logits(self, train):
        self.network.train(train)
        torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad():
            found = self.network(self.images).float().cpu().tolist()
        torch.backends.cudnn.allow_tf32 = True
        return {"logits": found}

    def step(self):
        if self.optimizer is None:
            self.network.eval()
            with torch.no_grad(), self.amp:
                self.forward(self.images)
            return
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.amp:
            loss = F.cross_entropy(self.forward(self.images).float(), self.labels)
        loss.backward()
        self.optimizer.step()

    def synchronised_step(self):
        self.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def run(self, n, warm=0.0):
        return {"seconds": worker.seconds(self.synchronised_step, n, warm)}

    def peak(self):
        on_gpu = torch.cuda.is_available()
        return {"bytes": torch.cuda.max_memory_allocated() if on_gpu else worker.resident_peak()}


if __name__ == "__main__":
    worker.answer(Peer())
