"""The whole tiny reference model against its figures: images, logits, losses, velocity, sampling, padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from collector.common.errors import MonoError  # noqa: E402
from finetune.alpamayo.cache import Columns, VisionFeatures  # noqa: E402
from finetune.alpamayo.generation import generate  # noqa: E402
from finetune.alpamayo.rope import prefix_positions  # noqa: E402
from finetune.checkpoint import LoadedModel, load_model  # noqa: E402
from finetune.processing.processor import history_bins  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402
from tests.helpers.small_model import prompt_batch  # noqa: E402

PHOTO = (36, 64, 3)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(TINY)


@pytest.fixture(scope="module")
def io() -> dict[str, Any]:
    stored = np.load(TINY / "io.npz")
    return {key: torch.as_tensor(stored[key]) for key in stored.files}


@pytest.fixture(scope="module")
def vision(loaded: LoadedModel, io: dict[str, Any]) -> VisionFeatures:
    with torch.no_grad():
        return loaded.model.encode_images(io["s0/pixel_values"].float(), io["s0/image_grid_thw"])


def gap(ours: Any, theirs: Any) -> float:
    assert ours.shape == theirs.shape
    return float((ours.detach().double() - theirs.detach().double()).abs().max())


def read(loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures, ids: str) -> Any:
    mask = io["s0/train_cot/attention_mask"]
    return loaded.model.run_prefix(io[f"s0/train_cot/{ids}"], mask, vision, io["s0/image_grid_thw"])


def test_vision_tower(io: dict[str, Any], vision: VisionFeatures) -> None:
    assert gap(vision.embeds, io["s0/vision/image_embeds"]) < 1e-5
    assert gap(torch.stack(vision.deepstack), io["s0/vision/deepstack"]) < 1e-5


def test_equal_images_take_the_batched_path_to_the_same_features(loaded: LoadedModel, io: dict[str, Any]) -> None:
    grids = io["s0/image_grid_thw"][:2]
    patches = int(grids.prod(-1).sum())
    ours = loaded.model.encode_images(io["s0/pixel_values"][:patches].float(), grids)
    tokens = patches // 4
    assert gap(ours.embeds, io["s0/vision/image_embeds"][:tokens]) < 1e-5
    assert gap(torch.stack(ours.deepstack), io["s0/vision/deepstack"][:, :tokens]) < 1e-5


def test_rotary_positions(loaded: LoadedModel, io: dict[str, Any]) -> None:
    ids, mask = io["s0/train_cot/input_ids_all_fused"], io["s0/train_cot/attention_mask"]
    positions, following = prefix_positions(ids, mask, io["s0/image_grid_thw"], loaded.config.vlm["image_token_id"], 2)
    assert (positions == io["s0/stage1/position_ids"]).all()
    assert int(following) - int(mask.sum()) == int(io["s0/stage1/rope_deltas"])


def test_positions_refuse_what_does_not_fit(loaded: LoadedModel, io: dict[str, Any]) -> None:
    ids, mask, grids = (
        io[k] for k in ("s0/train_cot/input_ids_all_fused", "s0/train_cot/attention_mask", "s0/image_grid_thw")
    )
    image = loaded.config.vlm["image_token_id"]
    for wrong in (grids[:3], torch.cat([grids, grids[:1]]), grids.flip(0)):
        with pytest.raises(MonoError, match="placeholders"):
            prefix_positions(ids, mask, wrong, image, 2)
    with pytest.raises(MonoError, match="padding on the left"):
        prefix_positions(ids, torch.cat([mask[:, :1] * 0, mask[:, 1:]], 1), grids, image, 2)


def test_language_model_logits_cache_and_losses(
    loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures
) -> None:
    with torch.no_grad():
        prefix = read(loaded, io, vision, "input_ids_all_fused")
        logits = loaded.model.text_logits(prefix.hidden)
        assert gap(logits[:, -24:], io["s0/stage1/logits_last24"]) < 1e-5
        assert gap(logits[:, ::37], io["s0/stage1/logits_rows"]) < 1e-5
        assert gap(prefix.keys[0][:, :, -8:], io["s0/stage1/kv_k_layer0_last8"]) < 1e-5
        assert gap(prefix.values[3][:, :, -8:], io["s0/stage1/kv_v_layer3_last8"]) < 1e-5
        labels = io["s0/train_cot/labels_mask"].clone()
        ids, words = prefix.input_ids, loaded.config.token_ids
        start, end = ((ids[0] == word).nonzero()[0, 0] for word in (words.future_start, words.future_end))
        trajectory = torch.zeros_like(labels)
        trajectory[:, start : end + 1] = True
        future = loaded.model.text_loss(prefix, labels & trajectory)
        others = loaded.model.text_loss(prefix, labels & ~trajectory)
    assert gap(future[0], io["s0/stage1/loss_future_traj"]) < 1e-5
    assert gap(others[0], io["s0/stage1/loss_others"]) < 1e-5
    with torch.no_grad():
        fused = read(loaded, io, vision, "input_ids_hist_fused")
        plain = loaded.model.text_loss(fused, io["s0/train_cot/labels_mask"])
    assert gap(plain[0], io["s0/stage2/noncausal/loss_vlm_hf"]) < 1e-5


def test_a_row_without_labels_has_no_text_loss(loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures) -> None:
    with torch.no_grad():
        prefix = read(loaded, io, vision, "input_ids_hist_fused")
        assert float(loaded.model.text_loss(prefix, torch.zeros_like(prefix.filled))) == 0.0


def test_expert_sees_both_ways_and_stops_at_its_own_start(
    loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures
) -> None:
    model = loaded.model
    prefix = read(loaded, io, vision, "input_ids_hist_fused")
    assert int(prefix.visible.sum()) == int(io["s0/stage2/kv_cut"])
    assert int(prefix.expert_position) == int(io["s0/stage2/position_ids"][0, 0, 0])
    noise, t = io["train/noise"], io["train/t"]
    assert gap(model.action_in_proj(io["s0/stage2/noisy_x"], t), io["s0/stage2/action_embeds"]) < 1e-4
    predicted = model.velocity(prefix, io["s0/stage2/noisy_x"], t)
    assert gap(predicted, io["s0/stage2/noncausal/pred"]) < 1e-5
    # The causal variant, which sdpa gives without an explicit mask, is a different answer.
    assert gap(predicted, io["s0/stage2/sdpa_asis_causal/pred"]) > 0.1
    loss = model.flow_loss(prefix, io["s0/stage2/action_target_x"], noise[:, None], t[:, None])
    assert gap(loss[0], io["s0/stage2/noncausal/loss_flow"]) < 1e-5


def test_first_waypoint_depends_on_the_last(loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures) -> None:
    prefix = read(loaded, io, vision, "input_ids_hist_fused").detach()
    x = io["s0/stage2/noisy_x"].clone().requires_grad_(True)
    loaded.model.velocity(prefix, x, io["train/t"])[0, 0].sum().backward()
    assert float(x.grad[0, -1].abs().sum()) > 0


def test_gradients_match_the_reference(loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures) -> None:
    model = loaded.model
    prefix = read(loaded, io, vision, "input_ids_hist_fused")
    model.zero_grad()
    model.flow_loss(
        prefix.detach(), io["s0/stage2/action_target_x"], io["train/noise"][:, None], io["train/t"][:, None]
    ).sum().backward()
    names = [key for key in io if key.startswith("s0/stage2/noncausal/grad/expert")]
    assert names
    for key in names:
        assert gap(model.get_parameter(key.rpartition("grad/")[2]).grad, io[key]) < 1e-6
    assert model.vlm.model.language_model.layers[0].self_attn.q_proj.weight.grad is None  # detached
    model.flow_loss(
        prefix, io["s0/stage2/action_target_x"], io["train/noise"][:, None], io["train/t"][:, None]
    ).sum().backward()
    assert float(model.vlm.model.language_model.layers[0].self_attn.k_proj.weight.grad.abs().sum()) > 0
    model.zero_grad()


def inference_prompt(loaded: LoadedModel, io: dict[str, Any]) -> Any:
    ids = io["s0/infer/input_ids_raw"].clone()
    history = history_bins(io["s0/ego_history_xyz"][0, 0], loaded.config.history_tokenizer)
    ids[ids == loaded.config.token_ids.history] = history + loaded.config.history_token_start_idx
    return ids


def test_forced_reasoning_and_euler_end_point(loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures) -> None:
    model, processor = loaded.model, loaded.processor
    ids = inference_prompt(loaded, io).repeat(2, 1)
    with torch.no_grad():
        prefix = model.run_prefix(
            ids, torch.ones_like(ids), VisionFeatures.cat([vision, vision]), io["s0/image_grid_thw"].repeat(2, 1)
        )
        answer = generate(
            model, prefix, cot_end_id=processor.cot_end_id, max_new_tokens=64, forced=io["infer/forced_tokens"].tolist()
        )
        assert [len(row) for row in answer.tokens] == io["infer/forced_len_until_future_start"].tolist()
        end = loaded.config.token_ids.future_start
        assert [row[-1] for row in answer.tokens] == [end, end]
        texts = [processor.decode_reasoning(row) for row in answer.tokens]
        assert texts == ["Nudge left.", "Keep distance to the lead car since it brakes."]
        length = answer.prefix.keys[0].shape[2]
        assert length == int(io["s0/infer/kv_len"])
        for step in (0, 5):
            t = io["s0/infer/euler_t"][step].repeat(2)
            velocity = model.velocity(answer.prefix, io["s0/infer/euler_x"][:, step], t)
            assert gap(velocity, io["s0/infer/euler_v"][:, step]) < 1e-5
        actions = model.sample_actions(answer.prefix, io["infer/x0"])
        assert gap(actions, io["s0/infer/euler_x"][:, -1]) < 1e-4
        assert answer.prefix.keys[0].shape[2] == length  # sampling leaves the prefix as it was
        assert gap(model.sample_actions(answer.prefix, io["infer/x0"]), actions) == 0.0
    rot = io["s0/ego_history_rot"][0, 0]
    yaw = torch.atan2(rot[:, 1, 0], rot[:, 0, 0])
    history = torch.cat([io["s0/ego_history_xyz"][0, 0, :, :2], yaw[:, None]], -1)
    path = model.action_space.action_to_traj(history.expand(2, -1, -1), actions)
    assert gap(path[..., :2], io["s0/infer/pred_xyz"][0, 0, ..., :2]) < 1e-3
    turned = io["s0/infer/pred_rot"][0, 0]
    assert gap(torch.cos(path[..., 2]), turned[..., 0, 0]) < 1e-3


def mixed_batch(loaded: LoadedModel, reasonings: list[str | None]) -> Any:
    rng = np.random.default_rng(5)
    history = np.zeros((16, 3))
    history[:, 0] = np.linspace(-3.0, 0.0, 16)
    processor = loaded.processor
    small = replace(processor.images, resize_width_px=96, resize_height_px=64)
    processor = type(processor)(loaded.config, processor.tokenizer, small)
    rows = [
        processor.encode([rng.integers(0, 255, PHOTO, dtype=np.uint8) for _ in range(1 + i % 2)], history, reasoning)
        for i, reasoning in enumerate(reasonings)
    ]
    return processor, rows


def test_padded_batch_equals_its_single_rows(loaded: LoadedModel) -> None:
    processor, rows = mixed_batch(loaded, ["Turn left.", "A longer reasoning about the bend.", ""])
    model, draws = loaded.model, 3
    generator = torch.Generator().manual_seed(3)
    actions, noise = (torch.randn(3, 64, 2, generator=generator), torch.randn(3, draws, 64, 2, generator=generator))
    t = torch.rand(3, draws, generator=generator)

    def losses(encoded: list[Any], which: slice) -> tuple[Any, Any]:
        batch = prompt_batch(encoded, processor.pad_id)
        vision = model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        flow = model.flow_loss(prefix, actions[which], noise[which], t[which])
        return model.text_loss(prefix, batch.label_mask), flow

    for graded in (False, True):
        with torch.set_grad_enabled(graded):
            text, flow = losses(rows, slice(0, 3))
            for row in range(3):
                one_text, one_flow = losses([rows[row]], slice(row, row + 1))
                assert gap(one_text[0], text[row]) < 1e-5
                assert gap(one_flow[0], flow[row]) < 1e-5
    assert text.detach()[2] == 0.0 and text.detach()[0] > 0.0


def test_batched_thinking_equals_thinking_alone(loaded: LoadedModel) -> None:
    processor, rows = mixed_batch(loaded, [None, None, None])
    model = loaded.model
    x0 = torch.randn(3, 64, 2, generator=torch.Generator().manual_seed(4))

    @torch.no_grad()
    def think(encoded: list[Any], noise: Any) -> tuple[list[list[int]], Any]:
        batch = prompt_batch(encoded, processor.pad_id)
        vision = model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        answer = generate(model, prefix, cot_end_id=processor.cot_end_id, max_new_tokens=12)
        return answer.tokens, model.sample_actions(answer.prefix, noise, 3)

    together, actions = think(rows, x0)
    words = loaded.config
    for row in range(3):
        alone, single = think([rows[row]], x0[row : row + 1])
        assert alone[0] == together[row]
        assert gap(single[0], actions[row]) < 1e-4
        assert together[row][-1] == words.token_ids.future_start  # written for it when room ran out
        bins = range(words.traj_token_start_idx, words.traj_token_start_idx + words.traj_vocab_size)
        assert not set(together[row]) & set(bins)


def test_columns_repeat_a_prefix_for_its_draws_and_new_ones_overwrite_each_other(
    loaded: LoadedModel, io: dict[str, Any], vision: VisionFeatures
) -> None:
    with torch.no_grad():
        prefix = read(loaded, io, vision, "input_ids_hist_fused")
        store = Columns(prefix.columns, 64, 2)
        new = torch.randn(2, 2, 64, 16)
        new_keys, _, keys, _ = store.open(64)[0]
        new_keys.copy_(new.transpose(1, 2))
        assert gap(keys[0, :, :-64], prefix.keys[0][0]) == 0.0 and gap(keys[1, :, :-64], prefix.keys[0][0]) == 0.0
        new_keys, _, again, _ = store.open(64)[0]
        new_keys.copy_(2 * new.transpose(1, 2))
    assert again.shape == keys.shape and gap(again[:, :, -64:], 2 * new) == 0.0
    with pytest.raises(MonoError, match="whole number"):
        loaded.model.velocity(
            type(prefix)(**{**vars(prefix), "input_ids": prefix.input_ids.repeat(2, 1)}),
            torch.zeros(3, 64, 2),
            torch.zeros(3),
        )
