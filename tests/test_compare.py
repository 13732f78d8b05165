"""Runs side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import write_ball

from nerfkit.cli import main
from nerfkit.compare import compare_runs, telling_views
from nerfkit.run import RunError

SMALL = "--steps 30 --train.samples-per-step 4096 --sampler.resolution 32"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trainings of the toy ball; to be read, not written."""
    root = tmp_path_factory.mktemp("compare")
    scene, folders = write_ball(root), [root / "one", root / "two"]
    for width, folder in zip(("32", "64"), folders, strict=True):
        words = [str(scene), "--out", str(folder), *SMALL.split(), "--field.width", width]
        assert main(["train", *words]) == 0
    return folders


def test_the_page_shows_both(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "one and two" in page and page.count("<svg") == 5
    assert page.count("data:image/jpeg;base64,") == 3 * 3, "two renders and the truth of three views"
    assert re.search(r"field\.width</code></th><td>32</td><td>64</td>", page)
    assert "train.steps</code>" not in page, "a setting that both share"
    assert "PSNR" in page and "class=best" in page
    assert capsys.readouterr().out.strip().endswith("page.html")


def test_runs_whose_scene_has_gone_are_compared_without_pictures(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise RunError("its scene ball is not at /x; say where it is")

    monkeypatch.setattr("nerfkit.assess.scene_of", gone)
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    assert "no pictures: its scene ball is not at" in capsys.readouterr().err
    page = (tmp_path / "page.html").read_text()
    assert "base64" not in page and page.count("<svg") == 5


def row(**what: object) -> str:
    return json.dumps({"scene": "ball", "downscale": 1, "steps": 30, "method": "small", **what})


def test_other_ways_to_fewer_bytes_stand_behind_the_runs(runs: list[Path], tmp_path: Path) -> None:
    """A curve for each method that was measured on this scene at this size, of the longest trainings alone."""
    rows = [row(bytes=n, psnr=10.0 + i) for i, n in enumerate((1000, 30_000, 500_000))]
    rows += [row(bytes=2000, psnr=9.0, method="binary"), row(bytes=9, psnr=9.0, scene="x", method="other scene")]
    rows += [row(bytes=9, psnr=9.0, downscale=2, method="smaller"), row(bytes=9, psnr=9.0, steps=3, method="shorter")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    for words, n_dots in (([], 2), (["--rows", str(tmp_path / "rows.jsonl")], 2 + 3 + 1)):
        assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html"), *words]) == 0
        page = (tmp_path / "page.html").read_text()
        chart = page[page.index("by bytes of the model") :].partition("</svg>")[0]
        assert chart.count("<circle") == n_dots
        assert (">small</text>" in chart) == (">binary</text>" in chart) == bool(words)
        assert "other scene" not in page and "smaller" not in chart and "shorter" not in page


@pytest.mark.parametrize(("text", "sentence"), [(None, "No such file"), ("{}", "no rows of"), ("x", "no rows of")])
def test_rows_that_are_none_are_told(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    if text is not None:
        (tmp_path / "rows.jsonl").write_text(text)
    words = [*map(str, runs), "--out", str(tmp_path / "page.html"), "--rows", str(tmp_path / "rows.jsonl")]
    assert main(["compare", *words]) == 1
    assert sentence in capsys.readouterr().err and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("n", "sentence"), [(1, "1 runs: from 2 to 4"), (5, "5 runs")])
def test_too_few_and_too_many(runs: list[Path], n: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=sentence):
        compare_runs([runs[0]] * n, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_views_that_differ_most_come_first() -> None:
    def scored(**psnr: float) -> dict:
        return {"per_image": [{"name": name, "psnr": value} for name, value in psnr.items()]}

    one, two = scored(a=20.0, b=25.0, c=30.0, d=31.0), scored(a=20.5, b=22.0, c=30.0, e=1.0)
    assert telling_views([one, two]) == ["b", "a", "c"]
    assert telling_views([one, {}]) == []
