"""Learning from a teacher's predictions beside the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from base.base_model import Detailed
from data_loader.dataset import RespDataset
from model.detail_losses import FineCrossEntropy
from model.loss import CrossEntropy
from tests.tiny import tiny_config, tiny_run
from tests.trainer.test_mid_epoch import same_end, stop_after
from tests.trainer.test_resume import same
from trainer.check import check_config
from trainer.distillation import Distillation, read_soft_targets, write_soft_targets
from trainer.mixup import Mix
from trainer.objective import batch_loss
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.errors import UserError

CLASSES = ("Normal", "Adventitious")
TARGET = torch.tensor([0, 1, 1])
# The teacher's logits and the student's.
TAUGHT, OUTPUT = (
    torch.tensor([[2.0, -1.0], [0.5, 0.0], [-3.0, 3.0]]),
    torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
)


def distillation(weight=0.25, temperature=3.0):
    return Distillation(TAUGHT.softmax(1).numpy(), weight, temperature)


def divergence(rows, temperature=3.0):
    p, q = (logits[rows].div(temperature).softmax(1) for logits in (TAUGHT, OUTPUT))
    return (p * (p / q).log()).sum(1)


def test_the_loss_is_that_of_the_labels_and_of_the_softened_predictions():
    soft = distillation().targets(torch.tensor([0, 1, 2]))
    expected = 0.75 * F.cross_entropy(OUTPUT, TARGET) + 0.25 * 9.0 * divergence([0, 1, 2]).mean()
    torch.testing.assert_close(batch_loss(CrossEntropy(), OUTPUT, TARGET, None, None, distillation(), soft), expected)


def test_a_teacher_that_is_certain_gives_a_finite_loss():
    certain = Distillation(np.array([[1.0, 0.0]], np.float32), 1.0, 1.0)
    loss = certain.loss(torch.zeros(()), OUTPUT[:1], certain.targets(torch.tensor([0])), None)
    torch.testing.assert_close(loss, F.cross_entropy(OUTPUT[:1], TARGET[:1]))


@pytest.mark.parametrize("details", [None, torch.tensor([0, 2, 1])])
def test_class_weights_count_for_both_parts(details):
    soft = distillation(1.0).targets(torch.tensor([0, 1, 2]))
    if details is None:
        loss, output, weights = CrossEntropy([0.2, 0.8]), OUTPUT, torch.tensor([0.2, 0.8, 0.8])
    else:
        loss, output = FineCrossEntropy([0.2, 0.8, 0.5]), Detailed(OUTPUT, torch.randn(3, 3))
        weights = torch.tensor([0.2, 0.5, 0.8])
    expected = 9.0 * (divergence([0, 1, 2]) * weights).sum() / weights.sum()
    torch.testing.assert_close(batch_loss(loss, output, TARGET, details, None, distillation(1.0), soft), expected)


def test_soft_predictions_are_mixed_as_the_classes_are():
    mix, teacher = Mix(0.7, torch.tensor([2, 0, 1])), distillation()
    soft = teacher.targets(torch.tensor([0, 1, 2]))
    loss = CrossEntropy()
    expected = 0.7 * batch_loss(loss, OUTPUT, TARGET, None, None, teacher, soft)
    expected += 0.3 * batch_loss(loss, OUTPUT, TARGET[mix.others], None, None, teacher, soft[mix.others])
    torch.testing.assert_close(batch_loss(loss, OUTPUT, TARGET, None, mix, teacher, soft), expected)


@pytest.fixture(scope="module")
def names(tiny_data):
    return RespDataset(tiny_data, 1, 1, "processed_stft").names


def teach(path, names, seed=0):
    """Predictions of a teacher, in another order than that of the items."""
    generator = np.random.default_rng(seed)
    prob = generator.dirichlet([1, 1], len(names)).astype(np.float32)
    write_soft_targets(path, names[::-1], prob, CLASSES)
    return {"distillation": {"soft_targets": str(path), "weight": 0.6}}


def test_a_table_of_soft_targets_is_read_as_it_was_written(tmp_path):
    names, prob = np.array(["NA", "1", "b,c"]), TAUGHT.softmax(1).numpy()
    write_soft_targets(tmp_path / "t.csv", names, prob, CLASSES)
    items, found = read_soft_targets(tmp_path / "t.csv", CLASSES)
    assert items.tolist() == names.tolist()
    np.testing.assert_allclose(found, prob, rtol=1e-6)


def test_a_run_learns_of_each_item_what_the_teacher_says_of_it(tiny_data, tmp_path, names):
    changes = teach(tmp_path / "t.csv", names) | {"trainer__epochs": 1}
    taught = tiny_run(tiny_data, tmp_path / "saved", **changes)
    items, prob = read_soft_targets(tmp_path / "t.csv", CLASSES)
    numbers = torch.from_numpy(taught.data_loader.train_indices)
    wanted = np.stack([prob[items == name][0] for name in names[numbers]])
    own = taught.distillation.targets(numbers) ** taught.distillation.temperature
    torch.testing.assert_close(own / own.sum(1, keepdim=True), torch.from_numpy(wanted), atol=1e-5, rtol=1e-4)
    alone = tiny_run(tiny_data, tmp_path / "saved", trainer__epochs=1)
    taught.train()
    alone.train()
    assert not same(dict(taught.model.state_dict()), dict(alone.model.state_dict()))


def test_a_taught_run_goes_on_from_the_midst_of_an_epoch_to_the_same_end(tiny_data, tmp_path, names):
    changes = teach(tmp_path / "t.csv", names) | {"data_loader__args__augment": {"mixup": 0.5}}
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()
    first = tiny_run(tiny_data, tmp_path / "parts", **changes)
    stop_after(first, len(first.data_loader) + 1)
    with pytest.raises(Stopped):
        first.train()
    (place,) = first.config.save_dir.glob("*-step*.pth")
    # With another teacher, or none, it would be another run.
    for other in (teach(tmp_path / "other.csv", names, seed=1), {"distillation": None}):
        with pytest.raises(UserError, match="soft_targets: are not those that"):
            tiny_run(tiny_data, tmp_path / "parts", resume=place, **changes | other)
    torch.manual_seed(9)
    second = tiny_run(tiny_data, tmp_path / "parts", resume=place, **changes)
    second.train()
    same_end(straight, second)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda rows: rows[:-1], "lacks 1 of"),
        (lambda rows: [*rows, rows[-1]], "twice"),
        (lambda rows: [rows[0].replace("Normal", "Wheeze"), *rows[1:]], "has the columns item, prob_Wheeze"),
        (lambda rows: [*rows[:-1], rows[-1].rsplit(",", 1)[0] + ",x"], "no number"),
        (lambda rows: [*rows[:-1], rows[-1].split(",")[0] + ",0.9,0.9"], "do not sum to 1"),
        (lambda rows: [*rows[:-1], rows[-1].split(",")[0] + ",1.5,-0.5"], "no probability"),
        (lambda rows: [], "no readable table"),
        (None, "there are no such soft targets"),
    ],
)
def test_soft_targets_that_do_not_fit_are_refused(tiny_data, tmp_path, names, edit, said):
    path = tmp_path / "t.csv"
    train = tiny_run(tiny_data, tmp_path / "saved").data_loader.train_indices
    changes = teach(path, names[train])
    rows = path.read_text().splitlines()
    path.write_text("\n".join(edit(rows))) if edit else path.unlink()
    with pytest.raises(UserError, match=said):
        tiny_run(tiny_data, tmp_path / "saved", **changes)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"weight": 0.5}, "distillation.soft_targets: is missing"),
        ({"soft_targets": "t.csv", "weight": 2}, "distillation.weight: is 2"),
        ({"soft_targets": "t.csv", "temperature": 0}, "distillation.temperature: is 0"),
        ({"soft_targets": "t.csv", "alpha": 0}, "distillation.alpha: is unknown"),
    ],
)
def test_a_distillation_that_cannot_be_is_refused(tiny_data, tmp_path, section, said):
    with pytest.raises(UserError, match=said):
        check_config(ConfigParser(tiny_config(tiny_data, tmp_path, distillation=section)))


def test_recordings_made_of_two_have_no_teacher(tiny_data, tmp_path):
    changes = {"distillation": {"soft_targets": "t.csv"}, "data_loader__args__augment": {"splice": 0.5}}
    with pytest.raises(UserError, match=r"augment.splice: makes recordings of two"):
        check_config(ConfigParser(tiny_config(tiny_data, tmp_path, **changes)))
