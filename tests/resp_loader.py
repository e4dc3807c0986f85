"""A small RespDataLoader, for the tests of it."""

from __future__ import annotations

from data_loader.resp_data_loader import RespDataLoader

STFT = {"input_dir": "processed_stft"}


def loader(data_dir, **options):
    return RespDataLoader(**{"data_dir": str(data_dir), "batch_size": 8, "validation_split": 0.3} | options)


def batches(data_loader, epoch=1):
    data_loader.set_epoch(epoch)
    return list(data_loader)
