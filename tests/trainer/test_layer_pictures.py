"""Pictures of what the layers make of a sample: `trainer.tensorboard_layers`."""

from __future__ import annotations

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from tests.tiny import tiny_run
from trainer.setup import shown_item

ARCH = {
    "type": "SequentialNet",
    "args": {
        "label_dim": 2,
        "layers": [
            {"type": "Conv2d", "args": {"out_channels": 4, "kernel_size": 9, "stride": 4}},
            {"type": "ReLU", "args": {"inplace": True}},
            {"type": "AvgPool2d", "args": {"kernel_size": 4}},
            "Flatten",
            "BatchNorm1d",
            {"type": "Linear", "args": {"out_features": 2}},
        ],
    },
}
TAGS = ["layers/01_layers.0_Conv2d", "layers/02_layers.1_ReLU", "layers/03_layers.2_AvgPool2d"]


def log_of(trainer):
    return EventAccumulator(str(trainer.config.log_dir), size_guidance={"images": 0}).Reload()


def steps_of(trainer, tag):
    return [event.step for event in log_of(trainer).Images(tag)]


def make(tiny_data, tmp_path, shown=True, **changes):
    changes = {"trainer__tensorboard": True, "trainer__tensorboard_layers": shown, "trainer__epochs": 1, **changes}
    return tiny_run(tiny_data, tmp_path, arch=ARCH, **changes)


def test_a_run_shows_its_layers_before_and_after_the_training(tiny_data, tmp_path):
    trainer = make(tiny_data, tmp_path)
    trainer.finish(trainer.train())
    log = log_of(trainer)
    assert [tag for tag in sorted(log.Tags()["images"]) if tag.startswith("layers/")] == TAGS
    before, after = log.Images(TAGS[0])
    assert (before.step, after.step) == (0, trainer.global_step + 1)
    assert before.encoded_image_string != after.encoded_image_string


def test_what_is_shown_is_the_first_validation_item_as_the_model_sees_it(tiny_data, tmp_path):
    trainer = make(tiny_data, tmp_path, data_loader__args__augment={"time_masks": 9, "time_width": 1.0})
    first = next(iter(trainer.valid_data_loader))
    assert torch.equal(shown_item(trainer), trainer.frontend.eval()(first.data[:1]))


def test_without_validation_a_training_item_is_shown(tiny_data, tmp_path):
    trainer = make(tiny_data, tmp_path, data_loader__args__validation_split=0, trainer__monitor="off")
    trainer.finish(trainer.train())
    assert len(steps_of(trainer, TAGS[0])) == 2


def test_a_run_that_goes_on_replaces_the_last_pictures_by_its_own(tiny_data, tmp_path):
    trainer = make(tiny_data, tmp_path)
    trainer.finish(trainer.train())
    end = trainer.global_step
    # Event files are read in the order of their names, which hold the second they were opened in.
    for path in trainer.config.log_dir.rglob("events*"):
        path.rename(path.with_name(path.name.replace("tfevents.", "tfevents.0", 1)))
    resumed = make(tiny_data, tmp_path, trainer__epochs=2, resume=trainer.config.save_dir / "checkpoint-epoch1.pth")
    resumed.finish(resumed.train())
    assert resumed.config.log_dir == trainer.config.log_dir
    assert steps_of(resumed, TAGS[0]) == [0, 2 * end + 1]


def test_pictures_do_not_change_the_training_and_come_on_request_alone(tiny_data, tmp_path):
    runs = [make(tiny_data, tmp_path, shown) for shown in (False, True)]
    for trainer in runs:
        trainer.finish(trainer.train())
    plain, shown = (trainer.model.state_dict() for trainer in runs)
    assert all(torch.equal(plain[name], shown[name]) for name in plain)
    assert not any(tag.startswith("layers/") for tag in log_of(runs[0]).Tags()["images"])


def test_the_graph_shows_the_layers_of_the_config(tiny_data, tmp_path):
    trainer = make(tiny_data, tmp_path, shown=False)
    trainer.writer.flush()
    nodes = GraphDef.FromString(log_of(trainer).Graph().SerializeToString()).node
    for kind in ("Conv2d", "AvgPool2d", "Linear"):
        assert any(kind in node.name for node in nodes), kind
