"""Curves go to TensorBoard as well, where that is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerfkit.train.progress import Report
from nerfkit.train.tensorboard import with_tensorboard


def report(step: int) -> Report:
    numbers = {name: 0.25 for name in Report.__dataclass_fields__}
    return Report(**{**numbers, "step": step, "psnr": 20.0 + step, "test_psnr": None})


def test_where_it_is_missing_one_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install 'nerfkit.log.'"):
        with_tensorboard(iter([]), tmp_path)


def test_reports_pass_through_and_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    closed = []

    def reports() -> Iterator[Report]:
        try:
            for step in range(1, 100):
                yield report(step)
        finally:
            closed.append(step)

    passed = with_tensorboard(reports(), tmp_path / "tb")
    assert [next(passed).step for _ in range(5)] == [1, 2, 3, 4, 5]
    passed.close()
    assert closed == [5]
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("psnr")] == [(i, 20.0 + i) for i in range(1, 6)]
    assert "test_psnr" not in events.Tags()["scalars"]
