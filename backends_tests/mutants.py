"""Wrong details that the tests must notice: one replaced text each, and the test that must then fail.

`once/test_mutants.py` applies each to a copy of the library. To add one, add an entry; its old text must
occur exactly once in its file.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in vmae_keras/`file`; then backends_tests/`test` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


def conforms(check: str, case: str) -> str:
    """The test of one check of `spec/conformance` on one case."""
    return f"each_backend/test_conformance.py::test_conforms[{check}: {case}]"


MERGING = "once/test_label_merging.py"
PLAN = "once/test_plan.py"
PREDICTIONS = conforms("predictions", "V1")
FLOATS = conforms("predictions", "V1, float video")
COSINE = conforms("predictions", "cosine attention")
TARGET = conforms("target", "V1")
SLOPES = conforms("gradients", "V1")
LOSS = conforms("weighted loss", "V2, odd grid")
PARITY = "each_backend/test_parity.py"
MIXED = f"{PARITY}::test_target_and_loss_stay_float32_under_mixed_precision"
VECTORS = "each_backend/test_vectors.py"
TUBELETS = "each_backend/test_tubelets.py"
GRADIENTS = "each_backend/test_gradients.py"
DROP_PATH = f"{GRADIENTS}::test_drop_path_keeps_or_scales_whole_branches"
INITIAL = "each_backend/test_batches.py::test_initial_weights_follow_the_rules"
SCHEDULE = f"{VECTORS}::test_learning_rates[learning_rate/2]"
ADAMW = "each_backend/test_optimizer.py"
STEPS = f"{ADAMW}::test_three_steps_equal_the_oracle[0.9-0.95-None]"
CLASSIFIER = "each_backend/test_classifier.py"
WAYS = "each_backend/test_training_options.py"
OPTIONS = "each_backend/test_options.py"
PRESETS = "each_backend/test_presets.py"
MAE_PREDICTIONS = conforms("predictions", "MAE, learned positions")
IMAGES = "once/test_recognise_image_models.py"
OTHER_POSITIONS = "test_other_positions_are_learned_by_the_encoder_and_refused_by_the_decoder"
AUGMENT = "once/test_finetune_augment.py"
MIXING = "once/test_mixing.py"
WEIGHT_NAMES = "once/test_weight_names.py"
LAYOUTS = f"{WEIGHT_NAMES}::test_layouts_are_those_of_the_table_and_are_inverted_to_the_bit"
RECOGNISE = "once/test_recognise.py"
KINDS_OF_FILES = f"{RECOGNISE}::test_each_file_is_recognised_and_holds_the_weights_of_the_table"
ALL_FAULTS = f"{RECOGNISE}::test_all_faults_are_listed_in_one_error_and_no_others"
NORMAL = f"{CLASSIFIER}::test_initial_weights_follow_the_rules"
WINDOWS = "once/test_windows.py"
PROBE = "each_backend/test_probe.py"
MASKS = "once/test_masks.py"
CELL = f"{VECTORS}::test_running_cells[running_cell/4]"
RATES = "once/test_config.py::test_learning_rate_counts_videos_not_their_crops"
SAMPLING = "once/test_data_sampling.py"
CROPS = "once/test_data_augment.py"
OFFICIAL_CROPS = f"{CROPS}::test_the_official_sizes_and_offsets_are_drawn_and_no_others"
RESIZED = f"{VECTORS}::test_resized_positions[resize/0]"

# On an entry's lines: its name and what is changed where; into what, and which test must notice.
# fmt: off
MUTANTS = [
    # Input, tubelets, positions
    Mutant("clips that tubelets do not divide", "config.py", "if size % part:",
           "if size < part:", conforms("sizes that do not divide are refused", "V1")),
    Mutant("mean not subtracted", "target.py", "pixels(tubelets) - ops.convert_to_tensor(mean)",
           "pixels(tubelets) - 0 * ops.convert_to_tensor(mean)", PREDICTIONS),
    Mutant("not divided by std", "target.py", " / ops.convert_to_tensor(std)",
           "", PREDICTIONS),
    Mutant("channel slowest in mean and std", "target.py", "np.tile(",
           "np.repeat(", PREDICTIONS),
    Mutant("uint8 divided by 256", "target.py", "/ 255.0",
           "/ 256.0", PREDICTIONS),
    Mutant("floats divided by 255", "target.py", 'return ops.cast(tubelets, "float32")\n',
           'return ops.cast(tubelets, "float32") / 255.0\n', FLOATS),
    Mutant("rows and columns of a tubelet swapped", "tubelets.py", "(0, 2, 1, 3))  # (B * t",
           "(0, 1, 2, 3))  # (B * t", f"{TUBELETS}::test_tubelets_equal_the_oracle_and_invert"),
    Mutant("every clip takes the first one's rows", "tubelets.py", "ids + first",
           "ids", f"{TUBELETS}::test_take_gathers_each_clips_own_rows"),
    Mutant("positions off by one", "positions.py", "np.arange(count)",
           "np.arange(1, count + 1)", f"{VECTORS}::test_positions[sinusoid/0]"),
    Mutant("sine and cosine swapped", "positions.py", "columns % 2 == 0",
           "columns % 2 == 1", f"{VECTORS}::test_positions[sinusoid/0]"),
    Mutant("positions in float32", "positions.py", "2 * (columns // 2) / dim)\n",
           "2 * (columns // 2) / dim)\n    angles = angles.astype(np.float32)\n",
           f"{VECTORS}::test_positions[sinusoid/3]"),
    Mutant("tokens without positions", "layers.py", "else ops.take(positions, ids, axis=0)",
           "else 0.0", PREDICTIONS),
    Mutant("cubic kernel of a = -.5", "positions.py", "a=-0.75",
           "a=-0.5", RESIZED),
    Mutant("time resized cubically", "positions.py", "(_linear, _cubic, _cubic)",
           "(_cubic, _cubic, _cubic)", f"{VECTORS}::test_resized_positions[resize/1]"),
    Mutant("corners aligned", "positions.py", "+ 0.5) * count / new_count - 0.5",
           ") * (count - 1) / max(new_count - 1, 1)", RESIZED),
    Mutant("nothing beyond the table's edge", "positions.py", "kernel(np.abs(source - neighbour))",
           "kernel(np.abs(source - neighbour)) * (inside == neighbour)", RESIZED),

    # Blocks
    Mutant("tanh GELU", "layers.py", "approximate=False",
           "approximate=True", PREDICTIONS),
    Mutant("another epsilon in norm1", "layers.py", 'epsilon=epsilon, dtype=dtype, name="norm1"',
           'epsilon=1e-12, dtype=dtype, name="norm1"',
           conforms("epsilon of one LayerNorm", "encoder/block_0/norm1")),
    Mutant("another epsilon in norm2", "layers.py", 'epsilon=epsilon, dtype=dtype, name="norm2"',
           'epsilon=1e-12, dtype=dtype, name="norm2"',
           conforms("epsilon of one LayerNorm", "decoder/block_0/norm2")),
    Mutant("another epsilon in the last norm", "layers.py", "epsilon=final_epsilon or epsilon",
           "epsilon=1e-5",
           conforms("epsilon of one LayerNorm", "decoder/norm")),
    Mutant("another epsilon by default", "config.py", "layer_norm_epsilon: float = 1e-6",
           "layer_norm_epsilon: float = 1e-12",
           "once/test_tables.py::test_the_specifications_configuration_has_the_librarys_fields_and_defaults"),
    Mutant("a bias on the keys", "layers.py", "ops.zeros_like(q_bias)",
           "q_bias", COSINE),
    Mutant("keys before queries", "layers.py", "q, k, v = (",
           "k, q, v = (", PREDICTIONS),
    Mutant("queries not scaled", "layers.py", "scale = (self.dim // self.heads) ** -0.5",
           "scale = 1", PREDICTIONS),
    Mutant("queries scaled by the whole width", "layers.py", "scale = (self.dim // self.heads) ** -0.5",
           "scale = self.dim**-0.5", PREDICTIONS),
    Mutant("log_scale not limited", "layers.py", "LOG_SCALE_LIMIT = 4.6052",
           "LOG_SCALE_LIMIT = 46.052", COSINE),
    Mutant("keys not normalised", "layers.py", "k = ops.normalize(k, axis=-1, epsilon=1e-12)",
           "k = k", COSINE),
    Mutant("one norm for both branches", "layers.py", "self.mlp(self.norm2(x))",
           "self.mlp(self.norm1(x))", PREDICTIONS),
    Mutant("one layer scale for both branches", "layers.py", "self._branch(y, self.scale2,",
           "self._branch(y, self.scale1,", conforms("predictions", "layer scale")),
    Mutant("drop-path without scaling", "layers.py", " / survive, x.dtype",
           ", x.dtype", DROP_PATH),
    Mutant("drop-path rates constant", "layers.py", "np.linspace(0.0, drop_path",
           "np.linspace(drop_path, drop_path", f"{VECTORS}::test_drop_path_rates[drop_path_rates/0]"),
    Mutant("drop-path drops whole batches", "layers.py", "2, ops.shape(x)[0])",
           "2, 1)", DROP_PATH),
    Mutant("drop-path drops both branches", "layers.py", "self.scale2, keep, 1)", "self.scale2, keep, 0)",
           "each_backend/test_drop_path.py::test_each_branch_of_each_clip_has_its_own_factor"),
    Mutant("drop-path in inference", "layers.py", "if training and self.settings", "if self.settings",
           f"{GRADIENTS}::test_drop_path_sleeps_in_inference_and_wakes_in_training"),

    # Decoder
    Mutant("mask tokens first", "model.py", "[known, query]",
           "[query, known]", PREDICTIONS),
    Mutant("mask tokens without positions", "model.py", "mask_token + ops.take(",
           "mask_token + 0 * ops.take(", PREDICTIONS),
    Mutant("bridge without positions", "model.py", "self.bridge(seen) + places",
           "self.bridge(seen)", PREDICTIONS),
    Mutant("no final norm in the decoder", "layers.py", "return self.norm(x)\n",
           "return self.norm(x) if last is None else x\n", PREDICTIONS),

    Mutant("predictions in ascending order", "model.py", "ops.take(position, decoded, axis=0)",
           "ops.take(position, ops.sort(decoded), axis=0)",
           conforms("predictions follow the order of decoded", "V1")),
    Mutant("half of the encoder's gradient", "model.py", "self.bridge(seen)",
           "self.bridge((seen + ops.stop_gradient(seen)) / 2)", SLOPES),

    # Target, loss, pictures
    Mutant("biased variance", "target.py", "(size // together - 1)",
           "(size // together)", TARGET),
    Mutant("epsilon inside the root", "target.py", "else ops.sqrt(variance) + 1e-6",
           "else ops.sqrt(variance + 1e-6)", conforms("target of low contrast", "V1, low contrast")),
    Mutant("no epsilon in the target", "target.py", "else ops.sqrt(variance) + 1e-6",
           "else ops.sqrt(variance)", conforms("target of one colour is finite", "V1, one colour")),
    Mutant("target normalised over all channels", "target.py", "else config.channels",
           "else 1", TARGET),
    Mutant("target after mean and std", "model.py", 'tokens = tubelets(batch["video"], ',
           'tokens = tubelets((batch["video"] / 255.0 - self.config.mean) / self.config.std, ',
           conforms("the target does not depend on mean and std", "raw pixels, frame mask")),
    Mutant("target of one token", "model.py", "target(take(tokens, decoded)",
           "target(take(tokens, 0 * decoded)", TARGET),
    Mutant("target in half precision", "target.py", "config.mae_target else pixels(tubelets)",
           'config.mae_target else ops.cast(pixels(tubelets), "bfloat16")', MIXED),
    Mutant("loss in half precision", "model.py", 'reduction="mean_with_sample_weight"',
           'reduction="mean_with_sample_weight", dtype="bfloat16"', MIXED),
    Mutant("weight of the seen", "model.py", 'return 1.0 - ops.cast(seen, "float32")',
           'return ops.cast(seen, "float32")', f"{PARITY}::test_weight_is_derived_when_absent"),
    Mutant("weight ignored", "model.py", "sample_weight=self.weight(x)",
           "sample_weight=None", LOSS),
    Mutant("loss divided by B M", "model.py", "mean_with_sample_weight",
           "sum_over_batch_size", LOSS),
    Mutant("loss averaged clip by clip", "model.py", "sample_weight=self.weight(x)",
           "sample_weight=self.weight(x) / ops.sum(self.weight(x), 1, keepdims=True)",
           conforms("weighted loss", "V2, odd grid")),
    Mutant("pictures without the epsilon", "patch_statistics.py", "(pixels * (deviation[:, None] + 1e-6)",
           "(pixels * deviation[:, None]",
           "once/test_picture.py::test_denormalise_inverts_normalise_also_where_nearly_flat"),
    Mutant("pictures with biased deviations", "patch_statistics.py", "pixels.std(1, ddof=1)",
           "pixels.std(1, ddof=0)",
           "once/test_picture.py::test_target_is_normalised_per_channel_with_the_unbiased_deviation"),

    # Masks
    Mutant("the masked are visible", "masks.py", "return np.flatnonzero(~hidden)",
           "return np.flatnonzero(hidden)", f"{VECTORS}::test_masks_of_given_draws[tube/0]"),
    Mutant("tubes counted as (ratio h) w", "masks.py", "_choose(h * w, int(ratio * (h * w)),",
           "_choose(h * w, int(ratio * h * w),", f"{VECTORS}::test_counts_of_masks[count/32]"),
    Mutant("agnostic counts the masked", "masks.py", "int(count * (1 - ratio))",
           "count - int(count * ratio)", f"{VECTORS}::test_counts_of_masks[count/3]"),
    Mutant("frames rounded", "masks.py", "int(ratio * t), ratio",
           "round(ratio * t), ratio", f"{VECTORS}::test_counts_of_masks[count/10]"),
    Mutant("masks not drawn", "masks.py", "return generator.choice(count, hidden, replace=False)",
           "return np.arange(hidden)", f"{MASKS}::test_every_place_is_drawn_equally_often[tube]"),
    Mutant("cells stand still", "masks.py", "-(pointer + 1 + slot)",
           "-(pointer + 1)", CELL),
    Mutant("cells turn the other way", "masks.py", "-(pointer + 1 + slot)",
           "-(pointer + 1 - slot)", CELL),
    Mutant("cells one phase off", "masks.py", "-(pointer + 1 + slot)",
           "-(pointer + slot)", CELL),
    Mutant("cells' queue reversed", "masks.py", "np.arange(4) < hidden",
           "np.arange(4) >= 4 - hidden", CELL),
    Mutant("cells by columns", "masks.py", ".reshape(2, 2)",
           ".reshape(2, 2).T", CELL),
    Mutant("cells decode what they hide", "masks.py", "np.flatnonzero(~_cells(",
           "np.flatnonzero(_cells(", CELL),
    Mutant("one phase for every clip", "masks.py", "phases[generator.integers(4)]",
           "phases[0]", f"{MASKS}::test_all_four_pointers_are_drawn"),
    Mutant("one phase for every run", "masks.py", "decoded = running_cell(grid, decoder_ratio, generator)",
           "decoded = running_cell(grid, decoder_ratio, np.random.default_rng(0))",
           "once/test_running_cells.py::test_every_clip_draws_its_phase"),
    Mutant("surplus of cells not drawn", "masks.py", "generator.choice(decoded, kept, replace=False)",
           "decoded[:kept]", "once/test_running_cells.py::test_the_surplus_is_drawn"),
    Mutant("weight of the visible", "masks.py", "np.isin(decoded, masked",
           "np.isin(decoded, visible", f"{MASKS}::test_pretraining_masks_have_the_published_counts"),

    # Weights at the start
    Mutant("xavier of qkv as three kernels", "layers.py",
           "3 * dim, use_bias=False, kernel_initializer=block_kernel(kernel_std)",
           '3 * dim, use_bias=False, kernel_initializer='
           'keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform")', INITIAL),
    Mutant("mask token cut at two deviations", "model.py", "TruncatedNormal(0.02)",
           "keras.initializers.TruncatedNormal(0, 0.02)", INITIAL),
    Mutant("bridge drawn as blocks are", "model.py", "kernel_initializer=torch_linear_kernel()",
           'kernel_initializer="glorot_uniform"', INITIAL),
    Mutant("tubelet bias of zero", "layers.py", "initializer=torch_bias(c.tubelet_size)",
           'initializer="zeros"', INITIAL),
    Mutant("log_scale from 0", "layers.py", "math.log(10.0)",
           "0.0", INITIAL),
    Mutant("decoder's MLP rounded up", "config.py", "int(decoder_dim * mlp_ratio)",
           "math.ceil(decoder_dim * mlp_ratio)",
           "once/test_tables.py::test_a_variant_has_the_published_sizes_and_counts[v2-g]"),

    # Other ways to train
    Mutant("a frozen encoder whose embedding is trained", "training/finetune.py",
           '"/tubelet_embedding/" not in weight.path and ', "",
           f"{WAYS}::test_what_is_frozen_stays_and_lora_is_added_to_it[freeze_encoder]"),
    Mutant("LoRA's products halved", "weights/source.py", "a.read() @ b.read()",
           "(a.read() @ b.read()) * 0.5",
           f"{WAYS}::test_what_is_frozen_stays_and_lora_is_added_to_it[lora_rank]"),
    Mutant("a softened loss without T^2", "training/distill.py", "self.temperature**2 * entropy",
           "entropy", f"{WAYS}::test_targets_and_losses_of_distillation_equal_the_oracles[classes]"),
    Mutant("a teacher's features of any scale", "training/distill.py",
           "centred / np.sqrt(out.var(axis=-1, keepdims=True) + EPSILON)", "centred",
           f"{WAYS}::test_targets_and_losses_of_distillation_equal_the_oracles[features]"),

    # Optimiser
    Mutant("averages begin at 0", "training/optimizer.py",
           "before = ops.where(self.iterations == 0, *held)",
           "before = ops.convert_to_tensor(self.averages[index])",
           f"{ADAMW}::test_averages_begin_at_the_first_weights_and_follow_updates_alone"),
    Mutant("biases decay", "training/optimizer.py", "return [name in DECAYED for name in names]",
           'return [name in (*DECAYED, "bias") for name in names]', f"{VECTORS}::test_weight_decay"),
    Mutant("mask token decays", "training/optimizer.py", "return [name in DECAYED for name in names]",
           'return [name in (*DECAYED, "mask_token") for name in names]', f"{VECTORS}::test_weight_decay"),
    Mutant("AdamW's epsilon of Keras", "training/optimizer.py", "epsilon=1e-8",
           "epsilon=1e-7", f"{ADAMW}::test_the_defaults_are_the_papers"),
    Mutant("epsilon before the correction", "training/optimizer.py",
           "(ops.sqrt(square) * second + self.epsilon)",
           "((ops.sqrt(square) + self.epsilon) * second)", STEPS),
    Mutant("decay not by the rate", "training/optimizer.py", "rate * self._decays[index]",
           "self._decays[index] * 1e-3", STEPS),
    Mutant("momentum not corrected", "training/optimizer.py", "rate / _correction(self.beta_1, step)",
           "rate", STEPS),
    Mutant("corrected one step late", "training/optimizer.py", "self.iterations + 1",
           "self.iterations + 2", STEPS),
    Mutant("layers numbered from the tubelets on", "training/optimizer.py", "return int(block[2]) + 1",
           "return int(block[2])", f"{VECTORS}::test_layer_decay[layer_decay/0]"),
    Mutant("layer decay spares the weight decay", "training/optimizer.py", "rate * self._decays[index]",
           "learning_rate * self._decays[index]",
           f"{ADAMW}::test_three_steps_equal_the_oracle[0.9-0.95-0.7]"),
    Mutant("warm-up one update longer", "training/optimizer.py", "max(self.warmup_steps - 1, 1)",
           "max(self.warmup_steps, 1)", SCHEDULE),
    Mutant("cosine one update late", "training/optimizer.py", "(step - self.warmup_steps) /",
           "(step - self.warmup_steps - 1) /", SCHEDULE),
    Mutant("schedule counts batches", "training/optimizer.py", " / self.accumulate)", ")",
           "each_backend/test_batches.py::test_accumulating_optimizer_uses_the_rate_of_the_update"),
    Mutant("rate scaled by crops", "training/recipe.py", "return self.base_learning_rate * self.batch_size",
           "return self.base_learning_rate * self.repeats * self.batch_size", RATES),
    Mutant("minimum rate not scaled", "training/recipe.py",
           "return self.minimum_learning_rate * self.batch_size * self.accumulate / 256",
           "return self.minimum_learning_rate", RATES),

    # Data
    Mutant("a short video starts again", "data/sampling.py",
           "np.minimum(start + stride * np.arange(frames), ticks - 1)",
           "(start + stride * np.arange(frames)) % ticks",
           f"{SAMPLING}::test_dense_pads_a_short_video_with_its_last_frame"),
    Mutant("the last start never drawn", "data/sampling.py", "generator.integers(spare + 1)",
           "generator.integers(max(spare, 1))", f"{SAMPLING}::test_dense_draws_every_start_and_no_other"),
    Mutant("segments' starts for their centres", "data/sampling.py", "(2 * segments + 1)",
           "(2 * segments)", f"{SAMPLING}::test_uniform_without_a_generator_takes_the_centres"),
    Mutant("an offset off the crop's grid", "data/augment.py", "(1, 1), (3, 1)",
           "(1, 2), (3, 1)", OFFICIAL_CROPS),
    Mutant("offsets in sixths", "data/augment.py", "across * ((picture[1] - width) // 4)",
           "across * ((picture[1] - width) // 6)", OFFICIAL_CROPS),
    Mutant("crops of any proportions", "data/augment.py", "MAX_DISTORTION = 1",
           "MAX_DISTORTION = 2", OFFICIAL_CROPS),
    Mutant("sides three pixels off snap", "data/augment.py", "abs(side - target) < 3",
           "abs(side - target) <= 3",
           f"{CROPS}::test_a_side_close_to_the_target_becomes_the_target_if_there_is_room"),
    Mutant("resized bicubically", "data/augment.py", "Resampling.BILINEAR",
           "Resampling.BICUBIC", f"{CROPS}::test_resize_is_pillows_bilinear_resize_of_the_box"),
    Mutant("repeats share crop and mask", "data/stream.py",
           "[self.sample(index, frames, generator) for _ in range(self.repeats)]",
           "[self.sample(index, frames, generator)] * self.repeats",
           "once/test_data_pipeline.py::test_repeats_share_the_video_but_not_the_mask"),

    # Fine-tuning and evaluation
    Mutant("norm before the mean", "encoder.py",
           "self.fc_norm(ops.mean(x[:, 1:] if self.config.class_token else x, axis=1))",
           "ops.mean(self.fc_norm(x), axis=1)", conforms("logits", "mean pooling")),
    Mutant("the last token for the first", "encoder.py", "x[:, 0]",
           "x[:, -1]", conforms("logits", "first token")),
    # Options of other implementations' models
    Mutant("a tanh GELU that is not", "layers.py", "ops.gelu(x, approximate=True)",
           "ops.gelu(x, approximate=False)", f"{OPTIONS}::test_predictions_equal_the_oracle[tanh GELU]"),
    Mutant("leaky ReLU of Keras's slope", "layers.py", "ops.leaky_relu(x, 0.01)",
           "ops.leaky_relu(x)", f"{OPTIONS}::test_activations_equal_the_oracle[leaky_relu]"),
    Mutant("a norm behind every encoder", "model.py", "final_norm=c.encoder_norm, ",
           "", f"{OPTIONS}::test_predictions_equal_the_oracle[no encoder norm]"),
    Mutant("one epsilon for all norms", "model.py", "final_epsilon=c.last_norm_epsilon, ",
           "", f"{OPTIONS}::test_predictions_equal_the_oracle[own epsilon of the last norm]"),
    Mutant("positions of the own grid", "positions.py", "made_for = position_grid or grid",
           "made_for = grid", f"{OPTIONS}::test_predictions_equal_the_oracle[positions of another grid]"),
    Mutant("learned positions decay", "training/optimizer.py", '\nDECAYED = ("kernel", ',
           '\nDECAYED = ("kernel", "positions", ',
           f"{OPTIONS}::test_learned_positions_are_a_weight_that_does_not_decay"),
    # Published weights: names, recognition, settings, classes
    Mutant("class token in the mean", "encoder.py", "x[:, 1:] if self.config.class_token else x",
           "x", conforms("logits", "ViT, mean pooling")),
    Mutant("the row's half first", "positions.py", "for place in (column, row)",
           "for place in (row, column)", conforms("logits", "ViT, mean pooling")),
    Mutant("class token without its position", "layers.py", "first + positions[0], positions[1:]",
           "first, positions[1:]", conforms("logits", "ViT, class token")),
    Mutant("class token at the first place", "model.py", "((0, 0), (1, 0), (0, 0))",
           "((0, 0), (0, 1), (0, 0))", MAE_PREDICTIONS),
    Mutant("MAE's target before mean and std", "target.py", "standardised(tubelets, config) if",
           "pixels(tubelets) if", conforms("target", "MAE, learned positions")),
    Mutant("MAE's epsilon outside the root", "target.py", "ops.sqrt(variance + 1e-6) if",
           "ops.sqrt(variance) + 1e-6 if",
           conforms("target of low contrast", "MAE, low contrast")),
    Mutant("class token not counted", "cost.py", "_encoder(config, tokens + config.class_token)",
           "_encoder(config, tokens)",
           "once/test_cost.py::test_published_variants_cost_what_the_table_says"),
    Mutant("any positions taken for MAE's", "weights/recognise.py",
           "np.allclose(stored, table, rtol=0, atol=1e-5)", "True", f"{IMAGES}::{OTHER_POSITIONS}"),
    Mutant("rows and columns of a convolution swapped", "weights/names.py",
           "np.moveaxis(tensor, (0, 1), (-1, -2))", "np.moveaxis(tensor, (0, 1, 3), (-1, -2, 2))",
           f"{LAYOUTS}[unlike sides-pretraining]"),
    Mutant("queries, keys and values backwards", "weights/recognise.py", "np.concatenate(tensors)",
           "np.concatenate(tensors[::-1])", f"{KINDS_OF_FILES}[huggingface-pretraining]"),
    Mutant("tensors left over go unnoticed", "weights/recognise.py", "sorted(stored.keys() - used)",
           "sorted(used - used)", f"{ALL_FAULTS}[official-pretraining]"),
    Mutant("one mis-shaped tensor decides the sizes", "weights/settings.py", "return mode(found) if found",
           "return found[0] if found",
           f"{RECOGNISE}::test_one_mis_shaped_block_does_not_decide_the_sizes"),
    Mutant("one weight under two names", "weights/recognise.py", "if name in stored:",
           "if False:", f"{RECOGNISE}::test_one_weight_under_two_names_is_refused"),
    Mutant("mmaction2's positions unread", "weights/recognise.py", "if not _is_fixed(",
           "if False and not _is_fixed(",
           f"{RECOGNISE}::test_other_positions_of_mmaction2_are_refused[moved]"),
    Mutant("a ViT-S's heads corrected against the user", "weights/settings.py",
           '== (384, 16) and "heads" not in overrides:', "== (384, 16):",
           f"{RECOGNISE}::test_sixteen_heads_of_a_vit_s_are_taken_as_six_and_said"),
    Mutant("last norm with the epsilon of the settings", "weights/settings.py",
           '"last_norm_epsilon": 1e-5,',
           '"last_norm_epsilon": float(settings.get("layer_norm_eps", 1e-12)),',
           f"{KINDS_OF_FILES}[huggingface-pretraining]"),
    Mutant("std not rescaled", "weights/settings.py", "s / white for s in std",
           "s for s in std", f"{RECOGNISE}::test_mean_and_std_are_of_pixels_in_0_to_1"),
    Mutant("the oldest checkpoint of a run", "weights/source.py", "read_tensors(checkpoints[-1])",
           "read_tensors(checkpoints[0])",
           f"{RECOGNISE}::test_a_run_folder_holds_the_model_of_its_newest_checkpoint"),
    Mutant("a class that occurs twice", "weights/classes.py", "twice.append(name)",
           "pass", "once/test_classes.py::test_all_that_occur_twice_are_listed"),
    Mutant("a head for classes of other names", "classifier.py", "or tuple(labels) == stored.labels",
           "or True", f"{PRESETS}::test_as_many_classes_of_other_names_are_other_classes"),
    Mutant("places of another height forgotten", "presets.py", "return changed.replace(position_grid=",
           "return changed.replace(position_grid=None and ",
           f"{PRESETS}::test_other_sizes_keep_the_places_of_tokens"),
    # Fine-tuning: augmentation and mixing
    Mutant("a crop's ratio is height over width", "data/finetune_augment.py",
           "w, h = round(math.sqrt(pixels * ratio))", "h, w = round(math.sqrt(pixels * ratio))",
           f"{AUGMENT}::test_the_crop_is_the_oracles"),
    Mutant("a resized crop shifted by half a pixel", "data/finetune_augment.py",
           "* count / new_count - 0.5", "* count / new_count",
           f"{AUGMENT}::test_the_resized_crop_is_the_oracles"),
    Mutant("one noise for all frames of a clip", "data/finetune_augment.py",
           "standard_normal(region.shape, np.float32)", "standard_normal(region.shape[1:], np.float32)",
           f"{AUGMENT}::test_normalised_noise_is_normal_and_of_every_frame_its_own"),
    Mutant("operations after the crop", "data/finetune_augment.py",
           "if self.rand_augment:", "if False:",
           f"{AUGMENT}::test_operations_come_first_on_whole_frames"),
    Mutant("operations drawn without replacement", "data/rand_augment.py",
           "generator.integers(len(OPERATIONS), size=self.operations)",
           "generator.permutation(len(OPERATIONS))[: self.operations]",
           f"{AUGMENT}::test_operations_are_drawn_as_often_as_they_should_be"),
    Mutant("the variant whose bits grow with the magnitude", "data/rand_augment.py",
           "return 4 - int(level * 4)", "return int(level * 4)",
           f"{AUGMENT}::test_operations_and_arguments_are_the_oracles"),
    Mutant("bilinear shears and shifts", "data/rand_augment.py",
           "matrix, Image.Resampling.BICUBIC", "matrix, Image.Resampling.BILINEAR",
           f"{AUGMENT}::test_frames_are_changed_as_the_oracle_changes_them[ShearX]"),
    Mutant("ImageNet's mean outside the frame", "data/rand_augment.py",
           "_GREY = (128, 128, 128)", "_GREY = (124, 116, 104)",
           f"{AUGMENT}::test_frames_are_changed_as_the_oracle_changes_them[Rotate]"),
    Mutant("a box's ratio as it was drawn", "data/mixing.py",
           "return 1 - _area(box) / (picture[0] * picture[1]), box", "return ratio, box",
           f"{MIXING}::test_choices_are_the_oracles[batch]"),
    Mutant("boxes of frames and rows", "data/mixing.py",
           "out[:, top:bottom, left:right] = _unit(other[:, top:bottom, left:right])",
           "out[top:bottom, left:right] = _unit(other[top:bottom, left:right])",
           f"{MIXING}::test_a_box_is_of_rows_and_columns"),
    Mutant("smoothing over the other classes alone", "data/mixing.py",
           "smoothing / classes)", "smoothing / max(classes - 1, 1))",
           f"{MIXING}::test_targets_are_the_oracles_and_sum_to_one"),
    Mutant("pairs that do not mirror", "data/mixing.py",
           "return pairs + pairs[::-1]", "return pairs + pairs",
           f"{MIXING}::test_choices_are_the_oracles[pair]"),
    Mutant("head dropout in inference", "classifier.py", "if training and self.head_dropout:",
           "if self.head_dropout:",
           f"{CLASSIFIER}::test_dropout_takes_the_heads_input_in_training_alone"),
    Mutant("head not scaled at the start", "classifier.py", "stddev=KERNEL_STD * init_scale",
           "stddev=KERNEL_STD", NORMAL),
    Mutant("classifier's kernels cut at two deviations", "initializers.py",
           "keras.initializers.RandomNormal(stddev=std)", "keras.initializers.TruncatedNormal(stddev=std)",
           NORMAL),
    Mutant("attention counted once", "cost.py", "2 * tokens**2 * dim",
           "tokens**2 * dim", "once/test_cost.py::test_published_variants_cost_what_the_table_says[v1-b]"),
    Mutant("all tokens embedded", "cost.py", "visible * config.tubelet_size * config.dim",
           "config.num_tokens * config.tubelet_size * config.dim",
           "once/test_cost.py::test_published_variants_cost_what_the_table_says[v1-b]"),
    Mutant("views at equal strides from 0", "data/views.py", "(spare / (count - 1))",
           "(spare // (count - 1))", f"{VECTORS}::test_dense_views[dense_views/0]"),
    Mutant("a single view from the start", "data/views.py", "return np.array([spare // 2])",
           "return np.array([0])", f"{VECTORS}::test_dense_views[dense_views/3]"),
    Mutant("both uniform views the same", "data/views.py", "[first, middle]",
           "[middle, middle]", f"{VECTORS}::test_uniform_views[uniform_views/0]"),
    Mutant("long side rounded up", "data/views.py", "size * width // short",
           "-(-size * width // short)", f"{VECTORS}::test_view_crops[view_crops/0]"),
    Mutant("logits averaged", "data/views.py", "np.exp(logits - logits.max(axis=-1, keepdims=True))",
           "np.exp(logits.mean(axis=0, keepdims=True))",
           "once/test_views.py::test_one_sure_view_does_not_overrule_the_others"),
    # Recipes, labelled mixes, plans
    Mutant("a default for what no source states", "training/recipe_pages.py", "(*needed, *self.unknown)",
           "needed", "once/test_recipe_pages.py::test_what_no_source_states_must_be_given"),
    Mutant("every row counted as repeated", "data/label_merging.py", "rows - len(found)",
           "rows", f"{MERGING}::test_an_alias_says_that_two_names_are_one_class"),
    Mutant("numbers merged as if they were names", "data/label_merging.py", "if len(listed) > 1 and all(",
           "if len(listed) < 1 and all(", f"{MERGING}::test_numbers_are_no_names"),
    Mutant("the last of two classes", "data/label_merging.py",
           "if found.setdefault(path, label) != label:", "if found.update({path: label}):",
           f"{MERGING}::test_a_file_with_two_classes_is_named"),
    Mutant("an alias of nothing unnoticed", "plan.py", "if all(old in merged.unused",
           "if not all(old in merged.unused", f"{PLAN}::test_what_is_wrong_with_a_plan_is_said"),
    Mutant("a changed recipe unnoticed", "progressive.py",
           '"recipe": checked.recipe and dataclasses.asdict(checked.recipe)', '"recipe": None',
           f"{PLAN}::test_what_changed_of_stages_that_have_begun_is_named"),
    Mutant("the last window left out", "data/windows.py", "sampling_stride), 0) + 1, stride)",
           "sampling_stride), 1), stride)", f"{WINDOWS}::test_starts_and_times_are_the_oracles"),
    Mutant("windows that end with their last frame's beginning", "data/windows.py",
           "np.minimum(starts + span, count)", "np.minimum(starts + span - 1, count)",
           f"{WINDOWS}::test_starts_and_times_are_the_oracles"),
    Mutant("a broken file's last frame repeated", "data/window_stream.py", "if start == 0:", "if held:",
           f"{WINDOWS}::test_a_file_that_breaks_halfway_gives_the_windows_before"),
    Mutant("frozen features behind no norm", "frozen.py", "if self.pooling == self.encoder.pooling:",
           "if self.pooling:", "each_backend/test_features.py"
           "::test_features_equal_the_oracles[first-mean-encoder/norm]"),
    Mutant("attention not scaled", "probes/heads.py", " * self.split[1] ** -0.5", "",
           f"{PROBE}::test_attentive_logits_equal_the_oracles[64]"),
    Mutant("one rate for all heads", "probes/heads.py", "rates = self.rates.reshape(",
           "rates = (0 * self.rates + 1e-3).reshape(",
           f"{PROBE}::test_heads_side_by_side_train_as_each_would_alone"),
    Mutant("neighbours at another temperature", "probes/nearest.py", "TEMPERATURE = 0.07",
           "TEMPERATURE = 0.1",
           f"{PROBE}::test_votes_equal_the_oracles"),
    Mutant("a share rounded down held out", "probes/probe.py", "int(len(own) * share + 0.5)",
           "int(len(own) * share)", f"{PROBE}::test_each_class_gives_its_share_and_keeps_a_video"),
]
# fmt: on
