"""Residuals of ControlNets: each rank takes its rows, whatever else is shared out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize("extra", [(), (0, 2, 5)], ids=["alone", "beside references"])
@pytest.mark.parametrize("size", [(6, 4), (4, 6)], ids=["rows", "columns"])
def test_residuals_are_cut_like_the_grid(size, extra, product):
    partition = product("parallel.partition").Partition(*size, (0, 2, 6), size == (4, 6), extra)
    shared_nets = product("comfyui.core.calls.shared_nets")
    residual = torch.arange(24.0)[None, :, None].expand(2, -1, 3)
    control = {"output": [residual, None, residual]}
    cut = [
        shared_nets.rows_of(control, SimpleNamespace(partition=partition, rank=rank))["output"]
        for rank in range(2)
    ]
    assert torch.equal(partition.join([one[0] for one in cut]), residual)
    assert all(one[1] is None and one[2] is one[0] for one in cut)
