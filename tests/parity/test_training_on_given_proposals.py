from __future__ import annotations

from recordings import Recording
from replay_training import Step
from training_tests import TrainingTests


class TestGivenProposals(TrainingTests):
    """The RoI heads alone, on proposals that are a function of the seed."""

    RUNS = "given"

    def test_the_given_proposals_are_the_recorded_ones(self, recording: Recording, step: Step) -> None:
        given = recording.rule.given_proposals(recording.seed)
        recorded = [boxes.numpy() for boxes in recording.per_image(f"{step.source}/proposals_img{{}}")]
        assert [(a == b).all() for a, b in zip(given, recorded, strict=True)] == [True] * len(given)
