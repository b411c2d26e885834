"""Settings of whole runs that take a CPU a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Cli = Callable[..., None]
Train = Callable[..., Path]

TINY_NETWORK = (
    "experiment=demo",
    "channels=16",
    "rois_per_image=16",
    "fc_channels=32",
    "num_mask_convs=1",
    "rpn.train_proposals.per_image=32",
    "rpn.eval_proposals.per_image=16",
)
TINY_RUN = (
    *TINY_NETWORK,
    "data.prepare.train=8",
    "data.prepare.val=3",
    "data.batch_size=3",
    "data.image_size=[64,96]",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "trainer.max_steps=4",
    "pictures=1",
)
# Seven steps over epochs of three batches, validated after every epoch, with a checkpoint after every step.
EVERY_STEP = (
    "trainer.max_steps=7",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "callbacks.last.every_n_train_steps=1",
    "callbacks.last.filename='at_{step}'",
    "+callbacks.last.save_top_k=-1",
    "+callbacks.last.auto_insert_metric_name=false",
)
