"""The vocabulary: a byte-level BPE plus trajectory bins ``<i0>`` ... and Alpamayo's special words.

A thin layer over the ``tokenizers`` library, so that nothing depends on a downloaded processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError
from finetune.alpamayo.configuration import ALPAMAYO_1_5, TrajectoryTokenIds
from finetune.model_files.location import TOKENIZER_FILE, tokenizer_file

# In the order in which the released vocabulary appends them; image_pad is Qwen's own word and keeps its id.
SPECIAL_KEYS = (
    "prompt_start", "prompt_end", "image_start", "image_pre_tkn", "image_end", "traj_history_start",
    "traj_history_pre_tkn", "traj_history_end", "cot_start", "cot_end", "meta_action_start", "meta_action_end",
    "traj_future_start", "traj_future_pre_tkn", "traj_future_end", "traj_history", "traj_future", "image_pad",
    "vectorized_wm", "vectorized_wm_start", "vectorized_wm_end", "vectorized_wm_pre_tkn", "route_start",
    "route_pad", "route_end", "question_start", "question_end", "answer_start", "answer_end",
)  # fmt: skip
# Words that no released prompt uses; Alpamayo 1.5 calls them <|_padding_0|> to <|_padding_8|>, ids unchanged.
RENAMED_IN_1_5 = (
    "image_pre_tkn", "traj_history_pre_tkn", "meta_action_start", "meta_action_end", "traj_future_pre_tkn",
    "vectorized_wm", "vectorized_wm_start", "vectorized_wm_end", "vectorized_wm_pre_tkn",
)  # fmt: skip

_NORMALIZERS = ("NoneType", "NFC", "NFD", "NFKC", "NFKD")
_SENTENCE = "Lane bends right: slow to 4.5 m/s, 右カーブ."
_EXPECTED, _DO = "a tokenizer that gives a text back as it was", "use the tokenizer.json that belongs to this model"


def special(key: str) -> str:
    """The written form of a special word: ``cot_start`` -> ``<|cot_start|>``."""
    return f"<|{key}|>"


def in_1_5(key: str) -> str:
    """What Alpamayo 1.5 calls a special word of Alpamayo 1, as a key."""
    return f"_padding_{RENAMED_IN_1_5.index(key)}" if key in RENAMED_IN_1_5 else key


class Tokenizer:
    """Text to ids and back, with Alpamayo's words present; ``backend`` is a ``tokenizers.Tokenizer``."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    @classmethod
    def from_folder(cls, folder: Path | str, backbone: str = "") -> Tokenizer:
        """Read ``tokenizer.json`` of a model folder, or of the released backbone it names.

        Raises:
            MonoError: the file is absent or malformed, or what it encodes is not what it was given.
        """
        import tokenizers

        path = tokenizer_file(Path(folder), backbone)
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception for a malformed file
            raise MonoError(f"{path} cannot be read ({error})", "a tokenizer of the tokenizers library") from error
        backend.no_truncation()  # a sentence is never cut, nor filled up
        backend.no_padding()
        made, normalizer = cls(backend), type(backend.normalizer).__name__
        if normalizer not in _NORMALIZERS or getattr(backend.model, "dropout", None):
            raise MonoError(f"{path} rewrites texts ({normalizer}) or breaks them at random", _EXPECTED, _DO)
        try:
            read = made.decode(made.encode(_SENTENCE))
        except BaseException as error:  # a panic of the library is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            raise MonoError(f"{path} cannot encode a sentence ({error})", _EXPECTED, _DO) from error
        if read != _SENTENCE:
            raise MonoError(f"{path} makes {read!r} of {_SENTENCE!r}", _EXPECTED, _DO)
        return made

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def id_of(self, word: str) -> int:
        """Id of one word of the vocabulary (MonoError: the vocabulary lacks it)."""
        found = self._backend.token_to_id(word)
        if found is None:
            raise MonoError(f"the tokenizer has no word {word!r}", "the vocabulary of Alpamayo", "see --model")
        return int(found)

    def has(self, word: str) -> bool:
        """Whether the vocabulary knows the word."""
        return self._backend.token_to_id(word) is not None

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special words inside it become their one id."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text that holds no special word (a person's or a model's sentence).

        Raises:
            MonoError: the text smuggles in a special word.
        """
        ids = self.encode(text)
        if "<|" in text or any(self._is_added(index) for index in ids):
            raise MonoError(f"a reasoning text with special words: {text!r}", "plain words", "clean the reasoning text")
        return ids

    def encode_beginning(self, text: str, rest: str = "The") -> list[int]:
        """Ids of a text that are the same with its continuation behind it: where a word reaches over, the ids before.

        Raises:
            MonoError: either smuggles in a special word.
        """
        both = zip(self.encode_plain(text), self.encode_plain(text + rest), strict=False)
        return [alone for alone, _ in takewhile(lambda pair: pair[0] == pair[1], both)]

    def _is_added(self, index: int) -> bool:
        word = self._backend.id_to_token(index)
        return word.startswith("<|") or (word.startswith("<i") and word.endswith(">") and len(word) > 3)

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of ids; special words are dropped unless asked for."""
        return str(self._backend.decode(list(ids), skip_special_tokens=not keep_special))

    def extend(self, trajectory_words: int = 4000, model_type: str = "alpamayo_r1") -> Tokenizer:
        """Append the trajectory bins and special words where they are missing, in the released order.

        Words that exist keep their ids, so extending twice changes nothing; a word that one generation renamed exists
        under either name, since converting a checkpoint rewrites its configuration alone.
        """
        from tokenizers import AddedToken

        bins = [word for word in (f"<i{n}>" for n in range(trajectory_words)) if not self.has(word)]
        if bins:
            self._backend.add_tokens([AddedToken(word, normalized=False) for word in bins])
        renamed = model_type == ALPAMAYO_1_5
        missing = [
            special(in_1_5(key) if renamed else key)
            for key in SPECIAL_KEYS
            if not self.has(special(key)) and not self.has(special(in_1_5(key)))
        ]
        if missing:
            self._backend.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in missing])
        return self

    def trajectory_token_ids(self) -> TrajectoryTokenIds:
        """Ids of the trajectory markers, as ``config.json`` stores them."""
        return TrajectoryTokenIds(
            history=self.id_of("<|traj_history|>"),
            future=self.id_of("<|traj_future|>"),
            history_start=self.id_of("<|traj_history_start|>"),
            future_start=self.id_of("<|traj_future_start|>"),
            history_end=self.id_of("<|traj_history_end|>"),
            future_end=self.id_of("<|traj_future_end|>"),
        )

    def save(self, folder: Path | str) -> None:
        """Write ``tokenizer.json``."""
        self._backend.save(str(Path(folder) / TOKENIZER_FILE))
