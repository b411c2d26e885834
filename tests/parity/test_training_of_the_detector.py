from __future__ import annotations

import torch
from networks import limits_of, load_features
from recordings import Recording
from replay_training import Step
from selection import assert_same_proposals
from training_tests import TrainingTests


class TestWholeDetector(TrainingTests):
    """From images to losses."""

    RUNS = "whole"

    @torch.no_grad()
    def test_training_proposals_equal_as_sets(self, recording: Recording, step: Step) -> None:
        rpn, found = step.model.rpn, step.handed_on[0, "box"]
        recorded = recording.per_image(f"{step.source}/proposals_img{{}}")
        limits = limits_of(recording.sizes)
        assert_same_proposals(rpn, load_features(recording), found, limits, rpn.train_proposals, recorded)
