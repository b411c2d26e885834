"""Which keys of a configuration say where, by whom and how fast a run is made, and leave its results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# For the hash that names a job as well as for the tables of the report; a key stands for all below it. Paths of the
# data are not among them: a path is all that tells two data sets apart before they are read.
NEUTRAL = (
    "hydra",
    "output_dir",
    "resume",
    "overwrite",
    "sweep_name",
    "scale_name",
    "logger",
    "launcher",
    "pictures",
    "callbacks.progress",
    "callbacks.measurements",
    "callbacks.last",
    "callbacks.preemption",
    "data.workers",
    "data.pin_memory",
    "data.index_cache",
    "data.eval_batch_size",
    "data.max_megapixels",  # what is larger ends a run
    "evaluation.timeout_minutes",
    "evaluation.verify_backend",
    "trainer.log_every_n_steps",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "trainer.enable_progress_bar",
    "trainer.enable_checkpointing",
    "trainer.num_sanity_val_steps",
    "backward",
    "compile",
    "checkpointing",
    "static_shapes",
    "backbone.checkpointing",
    "rpn.static_shapes",
    "model.backbone.checkpointing",
    "model.rpn.static_shapes",
    "model.roi_heads.static_shapes",
    "optimizer.factory.fused",
)


def is_below(key: str, roots: Sequence[str]) -> bool:
    """Whether a dotted key is one of ``roots`` or stands below one."""
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def without(config: Mapping[str, object], keys: Sequence[str]) -> dict[str, object]:
    """A copy of a plain configuration without some dotted keys; those that it lacks are passed over."""
    here = {key for key in keys if "." not in key}
    below = [key.split(".", 1) for key in keys if "." in key]
    found: dict[str, object] = {}
    for name, value in config.items():
        rest = [tail for head, tail in below if head == name]
        if name not in here:
            found[name] = without(value, rest) if rest and isinstance(value, Mapping) else value
    return found
