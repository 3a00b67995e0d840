"""Model folders in the official layout, read and written.

Weights come from safetensors only, one file or shards with an index. The model is built without memory and the
tensors of the files become its weights, so loading costs what the weights weigh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from collector.common.errors import MonoError
from collector.common.files import give_usual_mode
from finetune.alpamayo.action_projection import FourierEncoder, fourier_frequencies
from finetune.alpamayo.action_space import ActionSpace
from finetune.alpamayo.configuration import ALPAMAYO_1_5, CONFIG_FILE, VLM_CONFIG_FILE, AlpamayoConfig
from finetune.alpamayo.model import AlpamayoR1
from finetune.model_files.configuration_files import official_vlm, read_config
from finetune.model_files.location import resolve_model
from finetune.model_files.weight_files import WEIGHTS_FILE, read_header, weight_files
from finetune.policy import PolicySettings
from finetune.processing.processor import Processor

_NAMED = 5


@dataclass(frozen=True)
class LoadedModel:
    """A model with what belongs to it."""

    model: AlpamayoR1
    processor: Processor
    config: AlpamayoConfig
    folder: Path | None = None


def sound_device(name: str) -> torch.device:
    """The device of this name (MonoError: there is none on this machine that a model could run on)."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{card}" for card in range(cards))]
    if name not in known:
        found = f"the device {name!r}" + (", and torch sees no GPU" if name.startswith("cuda") and not cards else "")
        do = "see what nvidia-smi says, or leave the device out to use the CPU"
        raise MonoError(found, f"one of {', '.join(known)}", do)
    return torch.device(name)


def load_model(
    folder: Path | str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> LoadedModel:
    """Load a model folder, or a model of the Hugging Face hub by its id, onto a device.

    A folder has ``config.json``, weights, ``tokenizer.json``, and ``vlm_config.json`` unless it is the released model.
    The weights' type is ``dtype``, or the configuration's; constants keep float32 whatever it is.

    Raises:
        MonoError: an incomplete or foreign folder, missing and surplus tensors are named; or no such device.
    """
    if isinstance(device, str):
        device = sound_device(device)
    folder = resolve_model(folder)
    config = read_config(folder)
    processor = Processor.from_folder(folder, config)
    wanted = dtype or getattr(torch, config.dtype)
    with torch.device("meta"):
        model = AlpamayoR1(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    constants = _constant_names(model)
    tensors: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, tensor in _read_tensors(folder, device):
        if name in expected and tensor.shape != expected[name]:
            wrong.append(f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name])}")
        tensors[name] = tensor.float() if name in constants else tensor.to(wanted)
    missing = [name for name in expected if name not in tensors and name not in constants]
    surplus = [name for name in tensors if name not in expected]
    problems = [
        f"{what}: {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        for what, names in (("missing", missing), ("surplus", surplus), ("wrong shape", wrong))
        if names
    ]
    if problems:
        found = f"the weights in {folder} do not fit its config.json; " + "; ".join(problems)
        do = "download or save the folder again"
        raise MonoError(found, f"the {len(expected)} tensors of this configuration", do)
    # Files of Alpamayo 1.5 hold no constants: they are made again, as rounded as the released weights have them.
    stored = getattr(torch, config.dtype)
    for name, value in _constants(model, config, stored).items():
        tensors.setdefault(name, value.to(device))
    model.load_state_dict(tensors, strict=True, assign=True)
    _remake_rotary(model, device)
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if left:
        raise MonoError(f"tensors without values: {', '.join(left[:_NAMED])}", "all of them filled")
    return LoadedModel(model.eval(), processor, config, folder)


def load_base(folder: Path | str, device: str, quantised: str = PolicySettings.quantised) -> LoadedModel:
    """A model folder as a driver wants it: on a CPU weights are float32, elsewhere as stored.

    What is to be packed is loaded to the CPU: the card may have no room for it as it is.
    """
    dtype = torch.float32 if sound_device(device).type == "cpu" else None
    return load_model(folder, dtype=dtype, device=device if quantised == "none" else "cpu")


def save_model(loaded: LoadedModel, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
    """Write a model folder: configuration, one weights file (``dtype`` None keeps its type), tokenizer, image settings.

    Raises:
        MonoError: adapters are still in place.
    """
    folder = Path(folder)
    state = loaded.model.state_dict()
    wrapped = [name for name in state if "lora_" in name or ".base_layer." in name or ".modules_to_save." in name]
    if wrapped:
        raise MonoError(f"a model with adapters ({wrapped[0]})", "merged weights", "merge the adapter first")
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.config.model_type == ALPAMAYO_1_5:  # its constants are not persistent
        for name in _constant_names(loaded.model):
            del state[name]
    stored = dtype or loaded.model.vlm.lm_head.weight.dtype
    tensors = {name: tensor.detach().to("cpu", stored).contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
    give_usual_mode(folder / WEIGHTS_FILE)
    name = str(stored).replace("torch.", "")
    raw = {**loaded.config.raw, "dtype": name, "model_dtype": name}
    for file, content in ((CONFIG_FILE, raw), (VLM_CONFIG_FILE, official_vlm(loaded.config))):
        (folder / file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    loaded.processor.save(folder)


def _read_tensors(folder: Path, device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything in a folder's weight files."""
    files = weight_files(folder)
    for path in files:
        read_header(path)  # a shard cut off at its end is named before minutes are spent on the others
    for path in files:
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as content:
                for name in content.keys():  # noqa: SIM118 (not a mapping)
                    yield name, content.get_tensor(name)
        except SafetensorError as error:
            found = f"{path} is damaged ({error})"
            raise MonoError(found, "a complete safetensors file", "download it again") from error


def _constants(model: AlpamayoR1, config: AlpamayoConfig, stored: torch.dtype) -> dict[str, Tensor]:
    """Values of the seven persistent buffers, as float32."""
    shape = config.action_in_proj
    values = {
        f"{name}.freqs": fourier_frequencies(shape.num_fourier_feats, shape.max_freq)
        for name, module in model.named_modules()
        if isinstance(module, FourierEncoder)
    }
    for key, value in ActionSpace(config.action_space).state_dict().items():
        values[f"action_space.{key}"] = value.to(stored).float()
    return values


def _constant_names(model: nn.Module) -> set[str]:
    parameters = {name for name, _ in model.named_parameters()}
    return set(model.state_dict()) - parameters


def _remake_rotary(model: nn.Module, device: torch.device | str) -> None:
    """Build again every module whose unsaved buffers have no values yet: the rotary frequencies, in float32."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, type(module)(module.config).to(device))
