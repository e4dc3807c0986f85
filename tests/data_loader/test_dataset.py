"""Items of SPRSound and their names."""

from __future__ import annotations

import pandas as pd

from data_loader.dataset import RespDataset


def test_events_that_begin_together_have_names_of_their_own_and_the_first_keeps_its_name(own_data):
    before = RespDataset(own_data, 1, 1, None).names
    table = pd.read_csv(own_data / "task1.csv", dtype=str)
    also = table[table["split"] == "train"].iloc[[3, 3]].assign(end_ms=["9000", "9001"])
    pd.concat([table, also]).to_csv(own_data / "task1.csv", index=False)
    after = RespDataset(own_data, 1, 1, None).names
    assert after[: len(before)].tolist() == before.tolist()
    assert after[len(before) :].tolist() == [f"{before[3]}_1", f"{before[3]}_2"]
