"""The words around images, history and reasoning: the interface the released model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

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
