"""Counting what is right, with judges whose answers are known."""

import pytest
import torch

from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.data.toyworld.kinds import FRONTED
from maquette.evaluation.classifier import ToyClassifier, classify
from maquette.evaluation.prior_report import count_right, random_questions
from maquette.models.networks.toy_cnn import ToyLabels, classification_losses, sector_distance


class Judge(ToyClassifier):
    """Answers what it is told to."""

    def __init__(self, answers: ToyLabels) -> None:
        super().__init__(2, 2, size=16, width=8)
        self.answers = answers

    def labels(self, images):
        return self.answers


@pytest.fixture
def asked():
    return random_questions(64, seed=0)


def shifted(labels, sectors):
    return ToyLabels(
        kind=labels.kind,
        color=labels.color,
        azimuth=(labels.azimuth + sectors) % 8,
        elevation=labels.elevation,
    )


def test_questions_ask_each_kind_equally_often_and_repeat(asked):
    assert torch.bincount(asked.labels.kind).tolist() == [64 // len(KIND_NAMES)] * len(KIND_NAMES)
    again = random_questions(64, seed=0)
    assert again.captions == asked.captions
    assert random_questions(64, seed=1).captions != asked.captions
    assert asked.captions[0].split(",")[0].endswith(KIND_NAMES[asked.labels.kind[0]])


def test_a_judge_that_agrees_gives_full_marks(asked):
    report = count_right(Judge(asked.labels), torch.zeros(64, 3, 8, 8), asked.labels)
    assert set(report.shares().values()) == {1.0}


@pytest.mark.parametrize(
    ("off", "near", "exact"), [(1, 1.0, 0.0), (7, 1.0, 0.0), (2, 0.0, 0.0), (4, 0.0, 0.0)]
)
def test_a_neighbouring_sector_counts_as_near(asked, off, near, exact):
    report = count_right(Judge(shifted(asked.labels, off)), torch.zeros(64, 3, 8, 8), asked.labels)
    assert (report.azimuth, report.azimuth_exact) == (near, exact)


def test_round_toys_do_not_count_for_the_azimuth(asked):
    wrong = shifted(asked.labels, 4)
    round_toys = torch.tensor([KIND_NAMES[kind] not in FRONTED for kind in asked.labels.kind.tolist()])
    wrong.azimuth = torch.where(round_toys, wrong.azimuth, asked.labels.azimuth)
    assert count_right(Judge(wrong), torch.zeros(64, 3, 8, 8), asked.labels).azimuth == 1.0


def test_sector_distance_is_the_short_way_round():
    assert sector_distance(torch.tensor([0, 0, 7, 2]), torch.tensor([7, 4, 0, 2])).tolist() == [1, 4, 1, 0]


def test_classifier_gives_probabilities():
    torch.manual_seed(0)
    network = ToyClassifier(len(KIND_NAMES), len(COLOR_NAMES))
    images = torch.rand(2, 3, 64, 64)
    seen = classify(network, images)
    assert seen.kind.shape == (2, len(KIND_NAMES))
    assert seen.azimuth.shape == (2, 8)
    torch.testing.assert_close(seen.elevation.sum(-1), torch.ones(2))
    assert torch.equal(network.labels(images).color, seen.color.argmax(-1))


def test_azimuth_loss_ignores_round_toys():
    torch.manual_seed(0)
    network = ToyClassifier(2, 2, size=16, width=8)
    logits = network(torch.rand(2, 3, 16, 16))
    labels = [
        ToyLabels(
            kind=torch.zeros(2).long(),
            color=torch.zeros(2).long(),
            azimuth=torch.tensor([3, other]),
            elevation=torch.zeros(2).long(),
        )
        for other in (1, 6)
    ]
    fronted = torch.tensor([1.0, 0.0])
    first, second = (classification_losses(logits, one, fronted)["azimuth"] for one in labels)
    assert torch.equal(first, second)
