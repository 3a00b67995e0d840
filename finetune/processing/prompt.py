"""The words around images, history and reasoning: the interface the released model was trained on.

Two ways to the same thing: :func:`prompt_text` writes the whole conversation as a string (used to check against the
reference), :class:`PromptBuilder` assembles its ids from pieces that are tokenised once.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune.processing.tokenizer import Tokenizer

SYSTEM = "You are a driving assistant that generates safe and accurate actions."
ASK_REASONING = "output the chain-of-thought reasoning of the driving process"
ASK_FUTURE = "output the future trajectory"

HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
TURN = "<|im_end|>\n<|im_start|>assistant\n"

# What Alpamayo 1.5 calls its cameras, by our names of them.
DISPLAY_NAMES = {
    "cross_left": "Front left camera",
    "front": "Front camera",
    "cross_right": "Front right camera",
    "rear_left": "Rear left camera",
    "rear_tele": "Rear camera",
    "rear_right": "Rear right camera",
    "front_tele": "Front telephoto camera",
}


def request(with_reasoning: bool) -> str:
    """The sentence that asks for reasoning and trajectory, or for the trajectory alone."""
    wanted = [ASK_REASONING, ASK_FUTURE] if with_reasoning else [ASK_FUTURE]
    return ", then ".join(wanted) + "."


def captions(cameras: Sequence[str]) -> list[str]:
    """Alpamayo 1.5's words before each image: the camera before its first frame, and the frame's number before each.

    Args:
        cameras: of each image, camera-major, oldest to newest.
    """
    texts: list[str] = []
    frame = 0
    for camera, previous in zip(cameras, [None, *cameras], strict=False):
        frame = frame + 1 if camera == previous else 0
        texts.append(("" if frame else f"{DISPLAY_NAMES[camera]}: ") + f"frame {frame} ")
    return texts


def prompt_text(
    image_tokens: Sequence[int],
    history_tokens: int = 48,
    reasoning: str | None = None,
    before_images: Sequence[str] | None = None,
) -> str:
    """The prompt as one string, placeholders included.

    Args:
        image_tokens: language-model tokens of each image.
        history_tokens: placeholders of the history.
        reasoning: None ends at ``<|cot_start|>``; "" asks for the trajectory alone and ends at
            ``<|traj_future_start|>``; a text is written out, followed by ``<|cot_end|><|traj_future_start|>``.
        before_images: the words before each image, see :func:`captions`; None writes none.
    """
    images = "".join(
        f"{words}<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
        for words, count in zip(before_images or [""] * len(image_tokens), image_tokens, strict=False)
    )
    history = f"<|traj_history_start|>{'<|traj_history|>' * history_tokens}<|traj_history_end|>"
    if reasoning == "":
        answer = "<|traj_future_start|>"
    else:
        answer = "<|cot_start|>" + (f"{reasoning}<|cot_end|><|traj_future_start|>" if reasoning else "")
    return HEAD + images + history + request(reasoning != "") + TURN + answer


class PromptBuilder:
    """Ids of a prompt, assembled from cached pieces.

    Special words never merge with their neighbours, so tokenising from one of them to the next equals tokenising the
    whole string.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[str, list[int]] = {}
        self._tail = {asked: tokenizer.encode(request(asked) + TURN) for asked in (True, False)}
        self._vision = (tokenizer.id_of("<|vision_start|>"), tokenizer.id_of("<|vision_end|>"))
        self._image = tokenizer.id_of("<|image_pad|>")
        self._history = (tokenizer.id_of("<|traj_history_start|>"), tokenizer.id_of("<|traj_history_end|>"))
        self._reasoning = (tokenizer.id_of("<|cot_start|>"), tokenizer.id_of("<|cot_end|>"))
        self._future = tokenizer.id_of("<|traj_future_start|>")

    def build(
        self,
        image_tokens: Sequence[int],
        history_ids: Sequence[int],
        reasoning: str | None,
        before_images: Sequence[str] | None = None,
    ) -> tuple[list[int], int]:
        """Ids of the prompt with the history already inserted.

        Args:
            image_tokens, reasoning, before_images: as in :func:`prompt_text`.
            history_ids: vocabulary ids of the history bins.

        Returns:
            The ids and how many of the last ones are to be learned: reasoning, its end, and the trajectory's start.
        """
        ids: list[int] = []
        text = HEAD
        for words, count in zip(before_images or [""] * len(image_tokens), image_tokens, strict=False):
            ids += [*self._encoded(text + words), self._vision[0], *[self._image] * count, self._vision[1]]
            text = ""
        ids += [*self._encoded(text), self._history[0], *history_ids, self._history[1], *self._tail[reasoning != ""]]
        if reasoning == "":
            return [*ids, self._future], 0
        ids.append(self._reasoning[0])
        if reasoning is None:
            return ids, 0
        answer = [*self._tokenizer.encode_plain(reasoning), self._reasoning[1], self._future]
        return ids + answer, len(answer)

    def _encoded(self, text: str) -> list[int]:
        """Ids of a fixed text, tokenised on first use."""
        if text not in self._texts:
            self._texts[text] = self._tokenizer.encode(text) if text else []
        return self._texts[text]
