"""How a domain is trained: every option, its default, and what it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from radapt_jax.family.rounding import OF_ADAPTERS, bits_among
from radapt_jax.models.spec import DTYPES
from radapt_jax.train import optim
from radapt_jax.utils.checks import FLAG, TEXT, check_all, number, one_of, several, whole

# Options that came later, as trainings that began without them were.
LATER: Mapping[str, Any] = {
    **{"optimizer": "sgd", "adapter_optimizer": "", "adapter_rate": 0.0},
    **{"bits": 32, "views": 0, "mixup": 0.0, "distortion": 0.0, "average": 0.0},
}
DECAY: Mapping[str, float | None] = {"filters": None, "adapters": 5e-4, "norms": 5e-4, "head": 5e-4}
Called = Callable[[str], str]  # from an option to what messages call it


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How a domain is trained.

    Args:
      epochs: passes over the training images.
      steps: optimiser steps, instead of epochs; 0: as many as `epochs` takes.
      batch_size: images a step, over all devices.
      accumulate: parts that a batch is computed in, where it does not fit in memory.
      together: domains trained at once, on a device each; their filters are frozen.
      evals: evaluations on validation images, each with a state to resume from.
      log_every: steps between two rows of metrics.
      label_smoothing: in [0, 1).
      mixup: images are mixed with one another, by shares drawn from Beta(mixup, mixup); 0: they are
        not. See `data.mixing`.
      distortion: the strength of random changes of shape and colour, in [0, 1]; see `data.distort`.
      sync_norm: take batch statistics over all devices instead of by device.
      learning_rate: the highest of the schedule.
      momentum: of SGD; of Adam, that of its first moment.
      schedule: "steps" or "cosine".
      drop_at: fractions of the training after which the rate of "steps" drops.
      drop_by: factor at each drop.
      warmup: fraction of the training over which the rate rises linearly.
      average: fraction of the training, the last, over which weights are averaged; their mean
        becomes the domain, with norm statistics of its own. 0: the last weights do. See
        `optim.averaging`.
      decay: weight decay by label: "filters" (the shared ones), "adapters", "norms" and "head";
        None freezes. Labels that are left out are as in `DECAY`. Biases of filters and adapters
        are trained along, without decay.
      optimizer: "sgd" (with momentum) or "adam" (with decoupled decay); see `optim.OPTIMIZERS`.
      adapter_optimizer: of adapters alone, where filters are frozen; "": as `optimizer`.
      adapter_rate: the highest learning rate of adapters alone, where filters are frozen; 0: as
        `learning_rate`.
      bits: of a value of the trained domain's adapters, 2, 3, 4 or 8: they are trained through the
        rounding (see `through.through_rounding`), and the domain is rounded; 32: they are not.
      views: where the head alone is trained, how many views of an image it sees (its centre, the
        others cropped and mirrored at random): norms' statistics are settled first, and features
        of these views are computed once. 0: every step takes views of its own through the network,
        and statistics follow it.
      seed: of fresh variables, batches and dropout.
      dtype: of the computation, "float32" or "bfloat16".
      on_nan: "stop", or "rewind": go back to the last checkpoint and skip the batch.
      export: which state becomes the domain: "latest", or "best" on validation images.
      on_device: keep decoded images in the device's memory.

    Raises:
      ValueError: an option outside these ranges, or options that do not go with one another.
    """

    epochs: float = 120.0
    steps: int = 0
    batch_size: int = 128
    accumulate: int = 1
    together: int = 1
    evals: int = 20
    log_every: int = 50
    label_smoothing: float = 0.0
    mixup: float = LATER["mixup"]
    distortion: float = LATER["distortion"]
    sync_norm: bool = False
    learning_rate: float = 0.1
    momentum: float = 0.9
    schedule: str = "steps"
    drop_at: tuple[float, ...] = (80 / 120, 100 / 120)
    drop_by: float = 0.1
    warmup: float = 0.0
    average: float = LATER["average"]
    decay: Mapping[str, float | None] = dataclasses.field(default_factory=lambda: DECAY)
    optimizer: str = LATER["optimizer"]
    adapter_optimizer: str = LATER["adapter_optimizer"]
    adapter_rate: float = LATER["adapter_rate"]
    bits: int = LATER["bits"]
    views: int = LATER["views"]
    seed: int = 0
    dtype: str = "float32"
    on_nan: str = "stop"
    export: str = "latest"
    on_device: bool = False

    def __post_init__(self) -> None:
        check_all(vars(self), KINDS, "training: ")
        if unknown := sorted(set(self.decay) - set(optim.LABELS)):
            raise ValueError(
                f"training: found decay of {unknown}; expected some of {list(optim.LABELS)}."
            )
        object.__setattr__(self, "decay", {**DECAY, **self.decay})
        check_all(self.decay, dict.fromkeys(optim.LABELS, optim.DECAY), "weight decay: ")
        self.rate(100)
        trained = [label for label, decay in self.decay.items() if decay is not None]
        if self.views and trained != ["head"]:
            raise ValueError(
                f"training: found views {self.views} where {', '.join(trained)} are trained; "
                "expected 0, since features change with what is before the head (views are kept "
                "where the decay of filters, adapters and norms is None)."
            )
        for name in ("mixup", "distortion"):
            if self.views and getattr(self, name):
                raise ValueError(
                    f"training: found views {self.views} and {name} {getattr(self, name)}; "
                    "expected one of them 0, since features are kept of images as they are."
                )
        if self.adapters_apart and self.trains_filters:
            raise ValueError(
                f"training: found adapter_optimizer {self.adapter_optimizer!r} and adapter_rate "
                f"{self.adapter_rate} where filters are trained (decay.filters is "
                f"{self.decay['filters']}); expected '' and 0. Adapters have an optimiser of their "
                "own where filters are frozen: decay.filters None."
            )

    @property
    def compute_dtype(self) -> Any:
        return DTYPES[self.dtype]

    @property
    def trains_filters(self) -> bool:
        """Whether the shared filters are trained too, so that the domain has its own."""
        return self.decay["filters"] is not None

    @property
    def adapters_apart(self) -> bool:
        """Whether adapters are trained in another way than the rest."""
        return bool(self.adapter_optimizer or self.adapter_rate)

    def adapter_rule(self, total_steps: int) -> optim.Rule | None:
        """Return how adapters are trained; None: as the rest."""
        if not self.adapters_apart:
            return None
        rate = self.rate(total_steps, self.adapter_rate or self.learning_rate)
        return optim.Rule(self.adapter_optimizer or self.optimizer, rate)

    def rate(self, total_steps: int, highest: float | None = None) -> optax.Schedule:
        """Return the learning rate by step; `highest` is the option's if it is not given."""
        return optim.make_schedule(
            self.schedule,
            self.learning_rate if highest is None else highest,
            total_steps,
            drop_at=self.drop_at,
            drop_by=self.drop_by,
            warmup=self.warmup,
        )


KINDS = {
    "epochs": number("[0, 1e6]"),
    "steps": whole(0),
    **{name: whole(1) for name in ("batch_size", "accumulate", "together", "evals", "log_every")},
    "label_smoothing": number("[0, 1)"),
    "mixup": number("[0, inf)"),
    "distortion": number("[0, 1]"),
    "sync_norm": FLAG,
    "learning_rate": optim.RATE,
    "momentum": number("[0, 1)"),
    "optimizer": one_of(*optim.OPTIMIZERS),
    "adapter_optimizer": one_of("", *optim.OPTIMIZERS),
    "adapter_rate": number("[0, inf)"),
    "bits": bits_among(OF_ADAPTERS),
    "views": whole(0),
    "schedule": TEXT,
    "drop_at": several(number("[0, 1]")),
    "drop_by": optim.DROP,
    "warmup": number("[0, 1]"),
    "average": number("[0, 1]"),
    "seed": whole(0),
    "dtype": one_of(*DTYPES),
    "on_nan": one_of("stop", "rewind"),
    "export": one_of("latest", "best"),
    "on_device": FLAG,
}


def check_place(
    options: TrainOptions, devices: int, processes: int = 1, called: Called = "options.{}".format
) -> None:
    """Raise ValueError for options that do not go with one another, or with the devices.

    Args:
      options: of the training.
      devices: number of devices that share a batch, those of all processes together.
      processes: how many there are.
      called: what messages call an option.
    """
    if options.batch_size % (devices * options.accumulate):
        raise ValueError(
            f"found {called('batch_size')} {options.batch_size}; expected a positive multiple of "
            f"the {devices} devices that share a batch, times {called('accumulate')} "
            f"({options.accumulate})."
        )
    together = f"found {called('together')} {options.together}"
    if options.together > 1 and (options.trains_filters or options.on_device):
        raise ValueError(
            f"{together}; domains are trained at once where their filters are frozen "
            f"({called('decay')}.filters is None) and their images are not kept on the device "
            f"({called('on_device')} is False)."
        )
    if options.together > 1 and options.views:
        raise ValueError(
            f"{together} and {called('views')} {options.views}; expected 1 or 0: features that are "
            "kept belong to one domain."
        )
    if options.together > 1 and processes > 1:
        raise ValueError(
            f"{together} and {processes} processes; domains are trained at once by one process. "
            f"Set {called('together')} to 1, or start a run for some of the domains on each host."
        )
    if options.steps == 0 and options.epochs == 0:
        raise ValueError(
            f"found {called('steps')} {options.steps} and epochs {options.epochs}; expected a "
            "positive number of either."
        )


def check_export(options: TrainOptions, domain: str, has_val: bool) -> None:
    """Raise ValueError if the best state is to be exported, and nothing tells which that is."""
    if options.export == "best" and not has_val:
        raise ValueError(
            f"{domain}: export is 'best', and there are no validation images to tell which is. Set "
            "export to 'latest' (train.py: config.export), or leave images for validation "
            "(config.data.train_on='train' and config.data.val_fraction above 0)."
        )
