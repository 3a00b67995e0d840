"""Where a model is and which one it is: ``--model`` as a folder or a Hugging Face id, and a cheap fingerprint.

Nothing here needs torch. What lies on the hub is fetched as data: weights as safetensors, everything else as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from collector.common.errors import MonoError, require
from collector.common.files import with_home
from finetune.alpamayo.configuration import CONFIG_FILE, RELEASED_BACKBONES
from finetune.model_files.configuration_files import read_json
from finetune.model_files.weight_files import stored_tensors

TOKENIZER_FILE = "tokenizer.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w")
_HUB_FILES = ["*.safetensors", "*.json"]
# A folder of the hub's cache: models--OWNER--NAME/snapshots/COMMIT.
_CACHED = re.compile(r"models--(.+?)--(.+)")
_SAMPLE_BYTES = 4096
# Says which library wrote the folder and from where, nothing about the model.
_INCIDENTAL = ("transformers_version", "_name_or_path")


def resolve_model(name: Path | str) -> Path:
    """The folder of a model: ``name`` itself, or where the Hugging Face hub's ``owner/name`` is cached.

    A model of the hub is fetched on first use; a folder of that name comes first.

    Raises:
        MonoError: neither; or the hub is out of reach, does not know it, or wants a login.
    """
    folder = with_home(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise MonoError(f"{folder} is a file", "a model folder, or an id like nvidia/Alpamayo-R1-10B", "check --model")
    text = folder.as_posix()
    if not _HUB_ID.fullmatch(text):
        found = f"there is no folder {folder}"
        raise MonoError(found, "a model folder, or an id like nvidia/Alpamayo-R1-10B", "check --model")
    return _from_hub(text, None)


def _from_hub(repository: str, file: str | None) -> Path:
    """The local copy of a hub repository, or of one file of it."""
    hub = require("huggingface_hub", "model")
    errors = require("huggingface_hub.errors", "model")
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repository, file))
        return Path(hub.snapshot_download(repository, allow_patterns=_HUB_FILES))
    except errors.GatedRepoError as error:
        found = f"{repository} is given only to accounts that accepted its terms"
        do = f"accept them at https://huggingface.co/{repository}, then run `hf auth login`"
        raise MonoError(found, "a login that may read it", do) from error
    except errors.RepositoryNotFoundError as error:
        found = f"there is no folder {repository}, and the hub shows no model of that name"
        expected = "a folder, or the id of a model that is public or yours"
        raise MonoError(found, expected, "check the spelling; for a private model run `hf auth login`") from error
    except Exception as error:  # failures of the connection come as exceptions of whichever HTTP library is below
        unreached = isinstance(error, (errors.LocalEntryNotFoundError, ConnectionError))
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        why = "the hub cannot be reached" if unreached else f"the hub's client says: {said}"
        found = f"there is no folder {repository}, no complete copy of that model in the local cache, and {why}"
        do = f"run `hf download {repository}` once with a connection (unset HF_HUB_OFFLINE), or give a folder"
        raise MonoError(found, "a folder, or a model that was downloaded before", do) from error


def tokenizer_file(folder: Path, backbone: str) -> Path:
    """``tokenizer.json`` of a model folder, or of its backbone by name: released folders hold none.

    Raises:
        MonoError: no such file, and none to be had.
    """
    own = folder / TOKENIZER_FILE
    if own.is_file():
        return own
    if backbone not in RELEASED_BACKBONES:
        found, expected = f"no {TOKENIZER_FILE} in {folder}", "the tokenizer of the model or of its Qwen3-VL backbone"
        raise MonoError(found, expected, f"put the backbone's {TOKENIZER_FILE} there")
    # The released backbones share one vocabulary; the open one serves where the other wants a login.
    failures: list[MonoError] = []
    for repository in dict.fromkeys((backbone, *RELEASED_BACKBONES)):
        try:
            return _from_hub(repository, TOKENIZER_FILE)
        except MonoError as error:
            failures.append(error)
    found = f"no {TOKENIZER_FILE} in {folder}, and {failures[-1].found}"
    do = f"put the backbone's {TOKENIZER_FILE} there, or run `hf download {RELEASED_BACKBONES[0]} {TOKENIZER_FILE}`"
    raise MonoError(found, "the tokenizer of the model or of its Qwen3-VL backbone", do) from failures[-1]


def model_name(folder: Path) -> str:
    """What people call this model: its id where the folder is of the hub's cache, else the folder's name."""
    place = folder.absolute()
    if place.parent.name == "snapshots" and (cached := _CACHED.fullmatch(place.parent.parent.name)):
        return f"{cached[1]}/{cached[2]}"
    return place.name


def base_fingerprint(folder: Path) -> str:
    """A hash (64 hexadecimal digits) of a base, whatever its folder is called and however it is cut into shards.

    Taken from the configuration, from the name, type and shape of every tensor, and from the first 4 KiB of each: about
    5 MB to read of the released 22 GB.

    Raises:
        MonoError: no model folder, or damaged weights.
    """
    config = {key: value for key, value in read_json(folder / CONFIG_FILE).items() if key not in _INCIDENTAL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(stored_tensors(folder).items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        digest.update(tensor.read(_SAMPLE_BYTES).tobytes())
    return digest.hexdigest()
