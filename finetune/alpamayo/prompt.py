"""The words around images, history and thought: the interface the released model was trained on.

Two ways to the same thing: :func:`prompt_text` writes the whole conversation as a string (used to check against the
reference), :class:`PromptBuilder` assembles its ids from pieces that are tokenised once.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune.alpamayo.tokenizer import Tokenizer

SYSTEM = "You are a driving assistant that generates safe and accurate actions."
ASK_THOUGHT = "output the chain-of-thought reasoning of the driving process"
ASK_FUTURE = "output the future trajectory"

HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
TURN = "<|im_end|>\n<|im_start|>assistant\n"


def request(with_thought: bool) -> str:
    """The sentence that asks for thought and trajectory, or for the trajectory alone."""
    wanted = [ASK_THOUGHT, ASK_FUTURE] if with_thought else [ASK_FUTURE]
    return ", then ".join(wanted) + "."


def prompt_text(image_tokens: Sequence[int], history_tokens: int = 48, reasoning: str | None = None) -> str:
    """The prompt as one string, placeholders included.

    Args:
        image_tokens: language-model tokens of each image.
        history_tokens: placeholders of the history.
        reasoning: None ends at ``<|cot_start|>``; "" asks for the trajectory alone and ends at
            ``<|traj_future_start|>``; a text is written out, followed by ``<|cot_end|><|traj_future_start|>``.
    """
    images = "".join(f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in image_tokens)
    history = f"<|traj_history_start|>{'<|traj_history|>' * history_tokens}<|traj_history_end|>"
    if reasoning == "":
        answer = "<|traj_future_start|>"
    else:
        answer = "<|cot_start|>" + (f"{reasoning}<|cot_end|><|traj_future_start|>" if reasoning else "")
    return HEAD + images + history + request(reasoning != "") + TURN + answer


class PromptBuilder:
    """Ids of a prompt, assembled from cached pieces.

    Special words never merge with their neighbours, so piecewise tokenisation equals that of the whole string.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._head = tokenizer.encode(HEAD)
        self._tail = {asked: tokenizer.encode(request(asked) + TURN) for asked in (True, False)}
        self._vision = (tokenizer.id_of("<|vision_start|>"), tokenizer.id_of("<|vision_end|>"))
        self._image = tokenizer.id_of("<|image_pad|>")
        self._history = (tokenizer.id_of("<|traj_history_start|>"), tokenizer.id_of("<|traj_history_end|>"))
        self._thought = (tokenizer.id_of("<|cot_start|>"), tokenizer.id_of("<|cot_end|>"))
        self._future = tokenizer.id_of("<|traj_future_start|>")

    def build(
        self, image_tokens: Sequence[int], history_ids: Sequence[int], reasoning: str | None
    ) -> tuple[list[int], int]:
        """Ids of the prompt with the history already inserted.

        Args:
            image_tokens, reasoning: as in :func:`prompt_text`.
            history_ids: vocabulary ids of the history bins.

        Returns:
            The ids and how many of the last ones are to be learned: thought, its end, and the trajectory's start.
        """
        ids = list(self._head)
        for count in image_tokens:
            ids += [self._vision[0], *[self._image] * count, self._vision[1]]
        ids += [self._history[0], *history_ids, self._history[1], *self._tail[reasoning != ""]]
        if reasoning == "":
            return [*ids, self._future], 0
        ids.append(self._thought[0])
        if reasoning is None:
            return ids, 0
        answer = [*self._tokenizer.encode_plain(reasoning), self._thought[1], self._future]
        return ids + answer, len(answer)
