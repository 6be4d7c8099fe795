"""Run an experiment, or load the record that it left.

A run is a frozen configuration. Its key is the hash of the configuration, the resolved device class, the hashes of the
data it reads and the version of the experiment. ``full`` records live in git under ``data/results``; ``laptop`` records
in the user's cache, for one state of the package's source; ``smoke`` always computes.
"""

import contextlib
import hashlib
import importlib
import json
import logging
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

import fewbits
from fewbits import project
from fewbits.errors import FewbitsError
from fewbits.study import provenance, records, weights
from fewbits.study.allocator import keep_freed_memory
from fewbits.study.products import large_products
from fewbits.study.profiles import Profile
from fewbits.study.records import Metric, Record, Result
from fewbits.training.loop import OutOfTime, Task, Trainer
from fewbits.training.settings import Training

#: modules of fewbits.experiments, each with ``runs(profile)``
EXPERIMENTS = (
    "lstm_perplexity", "lstm_ablation", "torch_converters", "max_shift_theory", "float16", "word_coverage",
    "classifier_time", "fnnlm_training", "seq2seq_translation", "deep_lstm", "ternary_filters",
    "post_training", "retraining", "transformer_translation", "beam_normaliser", "click_ratio",
)  # fmt: skip

DEVICES = ("auto", "cpu", "cuda")  #: what can be asked for


@dataclass(frozen=True)
class Context:
    """What a computation is given beside its configuration; none of it changes the result on one kind of device."""

    device: str  #: "cpu" or "cuda"
    checkpoint: Path | None
    deadline: float  #: monotonic time after which to write a checkpoint and stop
    checkpoint_every: int  #: steps
    progress: bool
    profile: Profile = Profile.SMOKE

    def start(self, configuration: "Configuration") -> Mapping[str, Tensor]:
        """Return the trained weights of another run: those that were kept, or else it is trained now.

        Weights are not part of a record, so where only its record is, the run is computed again; chance of another
        machine may then give other weights. A run that starts from them records their hash.
        """
        key = _state(self.profile, configuration.key(self.device))
        on_disk = self.profile is not Profile.SMOKE
        if (found := weights.kept(key, on_disk=on_disk)) is not None:
            return found
        checkpoint = _checkpoint(self.profile, configuration.key(self.device))
        trained = configuration.train(replace(self, checkpoint=checkpoint))
        weights.keep(key, trained, on_disk=on_disk)
        _remove(checkpoint)
        return trained

    def part(self, name: str) -> "Context":
        """Return the same with a checkpoint of its own, for a run of several trainings."""
        path = self.checkpoint
        return replace(self, checkpoint=path and path.with_name(f"{path.stem}-{name}{path.suffix}"))

    def trainer(self, task: Task, training: Training) -> Trainer:
        """Return what trains ``task`` here, from its checkpoint if there is one."""
        return Trainer(
            task,
            training,
            device=self.device,
            checkpoint=self.checkpoint,
            every=self.checkpoint_every,
            deadline=self.deadline,
            progress=self.progress,
        )


@dataclass(frozen=True)
class Computed:
    """What a computation gives back."""

    metrics: dict[str, Metric]
    history: list[dict[str, float | int]]
    arrays: dict[str, list[float]]
    weights: Mapping[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)  #: what else to say of its making
    texts: dict[str, list[str]] = field(default_factory=dict)


class Configuration(BaseModel, ABC):
    """A run: validated, frozen, hashable to a key. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: ClassVar[str]  #: name of the module in ``fewbits.experiments``
    version: ClassVar[int]  #: raised when the computation changes its meaning, so that old records are not used
    keeps_weights: ClassVar[bool] = False  #: others start from its weights, see :meth:`Context.start`
    processor_only: ClassVar[bool] = False  #: the device that is asked for makes no difference: it is the CPU

    @property
    @abstractmethod
    def name(self) -> str:
        """A readable name, unique within the experiment and profile."""

    @property
    def large_products(self) -> bool:
        """Whether its time goes into few large matrix products, see :mod:`fewbits.study.products`."""
        return False

    @abstractmethod
    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the data that is read."""

    @abstractmethod
    def compute(self, context: Context) -> Computed:
        """Do the work; seeds are part of the configuration."""

    def train(self, context: Context) -> Mapping[str, Tensor]:
        """Return the weights of :meth:`compute`, without what is measured on them where that can be left out."""
        return self.compute(context).weights

    def starts(self) -> list["Configuration"]:
        """Return the runs whose weights this one starts from: those among its fields."""
        return [value for _, value in self if isinstance(value, Configuration)]

    def runs_on(self, asked: str) -> str:
        """Return "cpu" or "cuda": where it computes when ``asked`` is auto, cpu or cuda."""
        return "cpu" if self.processor_only and asked in DEVICES else resolve(asked)

    def key(self, device: str) -> str:
        """Return the identity of the run on ``device``: 64 hexadecimal digits."""
        parts = [self.experiment, self.version, self.model_dump(mode="json"), device, self.data_hashes()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def resolve(device: str = "auto") -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        FewbitsError: If another word is given, or CUDA is asked for where there is none.
    """
    if device not in DEVICES:
        raise FewbitsError(f"device {device!r} is unknown; it is auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise FewbitsError("there is no CUDA device here; use device auto or cpu.")
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def run(
    configuration: Configuration,
    profile: Profile,
    *,
    device: str = "auto",
    deadline: float = math.inf,
    checkpoint_every: int = 500,
    progress: bool = True,
) -> Record:
    """Return the record of ``configuration``: loaded if there is one, else computed and, but for ``smoke``, kept."""
    kept = recorded(configuration, profile, device)
    if kept is not None:
        return records.load(kept)
    device = configuration.runs_on(device)
    key = configuration.key(device)
    path = _path(configuration, profile, key)
    checkpoint = _checkpoint(profile, key)
    start, commit = time.monotonic(), provenance.commit()  # before the run: meanwhile the tree may move on
    keep_freed_memory()
    with torch.random.fork_rng(), large_products(configuration.large_products), _quiet():
        computed = configuration.compute(Context(device, checkpoint, deadline, checkpoint_every, progress, profile))
    record = Record(
        experiment=configuration.experiment,
        version=configuration.version,
        profile=profile,
        name=configuration.name,
        key=key,
        result=Result(
            config=configuration.model_dump(mode="json"),
            metrics={name: _finite(value) for name, value in computed.metrics.items()},
            history=computed.history,
            arrays=computed.arrays,
            texts=computed.texts,
            weights_sha256=weights_hash(computed.weights),
        ),
        provenance=provenance.collect(
            commit, device, time.monotonic() - start, configuration.data_hashes(), computed.provenance
        ),
    )
    if configuration.keeps_weights:
        weights.keep(_state(profile, key), computed.weights, on_disk=path is not None)
    if path is not None:
        records.save(record, path)
    _remove(checkpoint)
    return record


def recorded(configuration: Configuration, profile: Profile, device: str = "auto") -> Path | None:
    """Return the file that holds the record of ``configuration``, or ``None`` if there is none."""
    path = _path(configuration, profile, configuration.key(configuration.runs_on(device)))
    return path if path is not None and path.exists() else None


def run_each(
    configurations: Iterable[Configuration],
    profile: Profile,
    *,
    device: str = "auto",
    budget_minutes: float | None = None,
) -> Iterator[Record]:
    """Run or load one after another, and end early when the time is used up.

    An unfinished run goes on from its checkpoint next time.
    """
    deadline = math.inf if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    with contextlib.suppress(OutOfTime):
        for configuration in configurations:
            yield run(configuration, profile, device=device, deadline=deadline)


def planned(profile: Profile = Profile.FULL) -> list[Configuration]:
    """Return the runs of all experiments at ``profile``, most valuable first within each."""
    modules = (importlib.import_module(f"fewbits.experiments.{name}") for name in EXPERIMENTS)
    return [configuration for module in modules for configuration in module.runs(profile)]


def run_full(device: str = "auto", budget_minutes: float | None = None, only: str | None = None) -> list[Record]:
    """Compute the :func:`missing` runs one after another, and return the new records.

    When ``budget_minutes`` is used up, it stops; an unfinished run goes on from its checkpoint next time. A run that
    fails, such as one whose data is not here, does not keep the others from being computed.

    Raises:
        FewbitsError: At the end, if any failed: each with its reason.
    """
    made, failed = [], []
    deadline = math.inf if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    for configuration in missing(device, only):
        try:
            made.append(run(configuration, Profile.FULL, device=device, deadline=deadline))
        except OutOfTime:
            break
        except FewbitsError as error:
            failed.append(f"{configuration.name}: {error}")
    if failed:
        reasons = "\n".join(failed)
        raise FewbitsError(f"{len(made)} new records. {len(failed)} runs failed:\n{reasons}")
    return made


def missing(device: str = "auto", only: str | None = None) -> list[Configuration]:
    """Return the ``full`` runs that have no record on this device yet; if ``only`` names one, at most this.

    Raises:
        FewbitsError: If ``only`` names no planned run; the names are listed.
    """
    runs = [c for c in planned() if only in (None, c.name)]
    if not runs:
        raise FewbitsError(f"no full run is called {only!r}; there are: {', '.join(c.name for c in planned())}.")
    return [each for each in runs if recorded(each, Profile.FULL, device) is None]


def _path(configuration: Configuration, profile: Profile, key: str) -> Path | None:
    match profile:
        case Profile.FULL:
            return records.published_folder() / configuration.experiment / f"{configuration.name}-{key[:8]}.json"
        case Profile.LAPTOP:
            name = f"{configuration.name}-{key[:16]}-{source_digest()[:16]}.json"
            return records.cached_folder() / configuration.experiment / name
        case Profile.SMOKE:
            return None


def _finite(value: Metric) -> Metric:
    """JSON has no infinity: a diverged metric is None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checkpoint(profile: Profile, key: str) -> Path | None:
    return None if profile is Profile.SMOKE else project.cache() / "checkpoints" / f"{_state(profile, key)}.pt"


def _remove(checkpoint: Path | None) -> None:
    """Remove the checkpoint of a run that has ended; a run of several trainings has one for each."""
    for part in checkpoint.parent.glob(f"{checkpoint.stem}*") if checkpoint is not None else ():
        part.unlink()


def _state(profile: Profile, key: str) -> str:
    """Return the name of what a run leaves in the cache beside its record.

    Other source might train otherwise: what it left must not go into a laptop record of this source.
    """
    return f"{key}-{source_digest()[:16]}" if profile is Profile.LAPTOP else key


@cache
def source_digest() -> str:
    """Return the hash of the package's own source files."""
    folder = Path(fewbits.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names and bytes of ``tensors`` in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Fabric from announcing its settings, which the record holds, and from asking for ``srun`` on a cluster."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `srun` command is available")
            yield
    finally:
        logger.setLevel(level)
