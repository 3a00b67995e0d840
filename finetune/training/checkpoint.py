"""What a killed run goes on from: weights and optimiser of one step, in files that are whole or absent.

Nothing random is kept, since every draw of the loop follows from seed and step, and neither is the learning rate,
which follows from the step.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from collector.common.errors import MonoError
from collector.common.files import PART, give_usual_mode, open_regular, real_place
from collector.common.replacement import exchanged

_NAME = re.compile(r"step-(\d+)\.safetensors")
# The one before the newest is for a disk that lost the newest with the power.
_KEPT = 2


class MasterWeights:
    """Trainable parameters of a model in float32: themselves, or copies beside parameters of less precision.

    In bfloat16 a step of 1e-4 on a weight of 0.05 would be rounded away.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.masters = {
            name: value if value.dtype == torch.float32 else nn.Parameter(value.detach().float())
            for name, value in self._parameters.items()
        }

    def take_gradients(self) -> None:
        """Move gradients from the parameters to the masters; one that got none has zeros."""
        for name, parameter in self._parameters.items():
            master = self.masters[name]
            if parameter.grad is None:
                master.grad = torch.zeros_like(master)
            elif master is not parameter:
                master.grad, parameter.grad = parameter.grad.float(), None

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that broke off."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def give_values(self) -> None:
        """Write the masters' values into the parameters."""
        for name, parameter in self._parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])


def state_tensors(weights: MasterWeights, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a step leaves behind, by name: ``weight/NAME``, and ``KEY/NAME`` for each of the optimiser's tensors."""
    tensors = {f"weight/{name}": master.detach() for name, master in weights.masters.items()}
    for name, master in weights.masters.items():
        tensors |= {f"{key}/{name}": value for key, value in optimizer.state.get(master, {}).items()}
    return {name: value.to("cpu").contiguous() for name, value in tensors.items()}


def restore_state(weights: MasterWeights, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`state_tensors` (MonoError: the tensors are of other parameters)."""
    found = {name.partition("/")[2] for name in tensors}
    if found != set(weights.masters):
        other = min(found ^ set(weights.masters))
        what = f"a checkpoint of other trainable parameters ({other})"
        raise MonoError(what, "one of the same run", "use --overwrite")
    for key, value in tensors.items():
        shape = weights.masters[key.partition("/")[2]].shape
        if value.shape != shape and value.shape:  # the optimiser's count of steps is one number
            what = f"a checkpoint in which {key} has the shape {tuple(value.shape)}"
            raise MonoError(
                what, f"{tuple(shape)}, as in the same run", "delete the newest checkpoint, or use --overwrite"
            )
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, master) in enumerate(weights.masters.items()):
        entries = {key.partition("/")[0]: value for key, value in tensors.items() if key.partition("/")[2] == name}
        with torch.no_grad():
            master.copy_(entries.pop("weight"))
        if entries:
            state[index] = entries
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    weights.give_values()


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint."""

    step: int  # optimiser steps done
    tensors: dict[str, Tensor]  # of `state_tensors`
    facts: dict[str, Any]  # what else must survive, plain data


class Checkpoints:
    """The checkpoints of a run, ``step-000050.safetensors`` and so on, in a folder of theirs; the newest two stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint so that a kill or a power cut leaves it whole or absent."""
        real_place(self.folder).mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:06d}.safetensors"
        part = path.with_suffix(".part")
        try:
            save_file(tensors, str(part), metadata={"facts": json.dumps(facts)})
            give_usual_mode(part)
            flush_to_disk(part)
            part.replace(path)
            flush_to_disk(self.folder)
        except (OSError, SafetensorError) as error:
            found = f"the checkpoint {path} cannot be written: {error}"
            do = "make room and run the same command again; it goes on from the checkpoint before"
            raise MonoError(found, "room on the disk", do) from error
        for old in self._paths()[:-_KEPT]:
            old.unlink()

    def newest(self, most_steps: float = math.inf) -> Checkpoint | None:
        """The newest checkpoint that can be read; None without any (MonoError: of more steps than there will be)."""
        for path in reversed(self._paths()):
            if _step_of(path) > most_steps:
                raise MonoError(
                    f"the checkpoint {path} is of no step of this run", f"at most {most_steps}", "move it away"
                )
            try:
                open_regular(path).close()
                with safe_open(str(path), framework="pt") as content:
                    tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                    facts = json.loads(content.metadata()["facts"])
                if not isinstance(facts, dict):
                    raise TypeError(f"facts are a {type(facts).__name__}")  # noqa: TRY301 - said as what the library raises
            except (SafetensorError, OSError, KeyError, TypeError, ValueError, MonoError) as error:
                print(f"the checkpoint {path} is damaged ({error}); looking for the one before")
                continue
            return Checkpoint(_step_of(path), tensors, facts)
        return None

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def flush_to_disk(path: Path) -> None:
    """Fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def part_of(folder: Path) -> Path:
    """Where a folder is written until :func:`publish`: beside its place, behind a link that leads to a larger disk."""
    place = real_place(folder)
    return place.with_name(place.name + PART)


def publish(folder: Path) -> None:
    """Give what was written to :func:`part_of` its name, in one step, once all of it is on the disk."""
    place, part = real_place(folder), part_of(folder)
    for path in [*part.rglob("*"), part]:
        flush_to_disk(path)
    if place.is_dir() and exchanged(part, place):
        shutil.rmtree(part)
    else:
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    flush_to_disk(place.parent)
