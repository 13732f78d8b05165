"""The page of a run is well-formed, complete, and stands on its own wherever its folder goes."""

import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nerfkit.charts import Curve, Rig, duration, line_chart, nice_ticks, nice_top, offset_map, rig_views, si, smooth
from nerfkit.config import Config, FieldConfig
from nerfkit.evaluate import Cost, Setting, metrics_record, score_images, to_bytes
from nerfkit.looks import heat_map, most_of
from nerfkit.pictures import View, closest_look, error_map, pick_views
from nerfkit.report import write_report
from nerfkit.run import Run

NAMES = [f"views/<r>&'{index}.png" for index in range(5)]


def pictures(name: str) -> tuple[np.ndarray, np.ndarray]:
    index = NAMES.index(name)
    rng = np.random.default_rng(index)
    truth = rng.random((30, 40, 3))
    return np.clip(truth + 0.02 * (1 + index) * rng.standard_normal(truth.shape), 0, 1), truth


def views(name: str) -> View:
    render, truth = pictures(name)
    counts = torch.arange(30 * 40).view(30, 40).int() // (1 + NAMES.index(name))
    return View(render, truth, np.full((30, 40, 3), 0.5), counts)


def make_rig(n: int = 12, up: int = 2) -> Rig:
    """Cameras on a ring around the origin that look at it, the given axis up."""
    c2w = np.zeros((n, 3, 4))
    for i, angle in enumerate(np.linspace(0, 2 * np.pi, n, endpoint=False)):
        place = np.roll([2 * np.cos(angle), 2 * np.sin(angle), 0.5], up - 2)
        forward = -place / np.linalg.norm(place)
        right = np.cross(forward, np.eye(3)[up])
        right /= np.linalg.norm(right)
        c2w[i] = np.stack([right, np.cross(forward, right), forward, place], 1)
    return Rig(c2w, np.array([-1.0, -1, -1, 1, 1, 1]), ["test" if i % 4 == 0 else "train" for i in range(n)])


def make_run(folder: Path, trained: bool = True, scored: bool = True) -> Run:
    config = Config(field=FieldConfig(width=32))
    run = Run.create(
        folder / "a<b", config, folder / "scene", "toy & co", {}, "f1n9er", {}, ["nerfkit", "--x", "</td>"]
    )
    for step in range(1, 40 if trained else 0):
        run.log(
            {
                "step": step,
                "seconds": 3.0 * step,
                "loss": 1 / step if step != 7 else float("nan"),
                "psnr": 20 + step / 10,
                "rays_per_second": 1e5,
                "samples_per_ray": 9.0,
                "learning_rate": 0.01 * 0.9**step,
                "occupancy": 1 / step,
                "test_psnr": 21.0 if step % 10 == 0 else None,
            }
        )
    if scored:
        scores = score_images((name, *pictures(name)) for name in NAMES)
        cost = Cost(120.0, 39, 1e5, 9.0, 2**30, 2**20, "device")
        for one in scores["per_image"]:
            one["samples_per_ray"] = float(views(one["name"]).counts.float().mean())
        scores["cells"] = {"kind": "learned", "resolution": 64, "n_levels": 3, "occupied": 0.0423, "bytes": 98304}
        record = metrics_record(scores, Setting("white", "test", "every <8th>"), cost, config)
        run.write_json("metrics.json", record)
    return run


class Page(HTMLParser):
    """Checks nesting and gathers references and text."""

    VOID = {"meta", "img", "link", "br", "hr", "input"}

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text())
        self.close()
        assert self.open == [], "elements left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for key, value in attrs if key in ("src", "href", "data", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check_page(path: Path) -> Page:
    page = Page(path)
    ElementTree.fromstring(path.read_text().replace("<!DOCTYPE html>", ""))  # every drawing and entity is well-formed
    for reference in page.references:
        assert not Path(reference).is_absolute() and ":" not in reference and ".." not in reference
        assert (path.parent / reference).is_file()
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http" not in path.read_text() and "url(" not in path.read_text() and "@import" not in path.read_text()
    assert not re.search(r"\b(nan|inf|none)\b", path.read_text().split("</style>")[1])
    return page


def test_a_full_page(tmp_path):
    run = make_run(tmp_path)
    path = write_report(run, views, make_rig())
    assert path == run.path / "report.html"
    page = check_page(path)
    for words in ("toy & co · a<b", "Worst view", "Median view", "Best view", "SSIM 0.", "</td>", "Cameras", "2:00min"):
        assert words in page.text
    assert "field.width" in page.text and "32  instead of 64" in page.text
    assert "9 train" in page.text and "3 held out" in page.text
    assert "every <8th>" in page.text and "No LPIPS" in page.text
    assert len(page.references) == 24 and page.tags.count("svg") == 8
    assert "Where the sampler looks" in page.text and "600 samples a ray in the mean" in page.text
    assert "Cells (learned): 64 × 64 × 64 in 3 levels, 4.2 % occupied, 98.3 kB of bits." in page.text
    assert not list(run.path.glob(".*"))


def test_close_ups_are_exact_and_where_the_detail_is(tmp_path):
    truth = np.full((300, 400, 3), 0.5)
    truth[40:140, 210:330] += 0.3 * np.random.default_rng(0).random((100, 120, 1))
    rows, columns = closest_look(truth, 150)
    assert rows.start <= 40 and rows.stop >= 140 and columns.start <= 210 and columns.stop >= 330
    assert rows.stop - rows.start == columns.stop - columns.start == 150
    assert closest_look(truth[:90, :80], 150) == (slice(0, 90), slice(0, 80))

    run = make_run(tmp_path)
    write_report(run, views)
    name = run.read_json("renders/report/views.json")["names"]["Worst"]
    for kind, picture in zip(("render", "truth"), pictures(name), strict=True):
        shown = cv2.imread(str(run.path / f"renders/report/worst-{kind}-close.png"))[..., ::-1]
        assert np.array_equal(shown, to_bytes(picture)), "smaller than a close-up, so the whole picture, without loss"


def test_plain_and_aligned_scores_stand_side_by_side(tmp_path):
    run = make_run(tmp_path)
    metrics = run.read_json("metrics.json")
    text = check_page(write_report(run, views)).text
    for key in ("psnr", "high_pass"):
        assert f"{metrics[key]:.2f} dB" in text and f"{metrics['aligned'][key]:.2f} dB" in text
    run.write_json("metrics.json", metrics | {"aligned": None})
    assert "Detail and alignment" not in check_page(write_report(run)).text


def test_one_scale_of_samples_serves_all_views(tmp_path):
    run = make_run(tmp_path)
    text = check_page(write_report(run, views)).text
    kept = run.read_json("renders/report/views.json")
    counts = {label.lower(): views(name).counts for label, name in kept["names"].items()}
    assert kept["most"] == most_of(list(counts.values())) and f"to {kept['most']} and above" in text
    for label, each in counts.items():
        shown = cv2.imread(str(run.path / f"renders/report/{label}-samples.jpg"))[..., ::-1]
        wanted = heat_map(each, kept["most"]).astype(float)
        assert np.abs(shown - wanted).mean() < 6, "the picture is that of its view, in the common scale"


def test_a_page_of_before_has_no_looks(tmp_path):
    run = make_run(tmp_path)
    write_report(run, views)
    kept = run.read_json("renders/report/views.json")
    run.write_json("renders/report/views.json", {key: kept[key] for key in ("names", "top")})
    page = check_page(write_report(run))
    assert "Where the sampler looks" not in page.text and len(page.references) == 9


def test_refined_poses_are_told(tmp_path):
    run = make_run(tmp_path)
    assert "refined" not in check_page(write_report(run, views, make_rig())).text
    for number in (1, 2):
        found = {"degrees": {"median": 0.25, "most": 1.5 * number}, "shift": {"median": 0.01, "most": 0.125}}
        run.log({"step": 40, "seconds": 120.0, "poses": {"round": number, "n_views": 9, "n_moved": 7, **found}})
    text = check_page(write_report(run, views, make_rig())).text
    assert "7 of 9 poses of training views were refined" in text
    assert "0.25° and 0.01 scene units in the median, 3° and 0.12 scene units at most" in text


def test_offsets_of_patches_are_drawn(tmp_path):
    run = make_run(tmp_path)
    assert "Offsets of patches" not in check_page(write_report(run, views)).text
    run.log({"step": 40, "seconds": 120.0, "alignment": {"reach": 1, "counts": [[0, 1, 0], [0, 6, 2], [0, 1, 0]]}})
    text = check_page(write_report(run)).text
    assert "Offsets of patches" in text and "1, 0: 20 %" in text and "0, 0: 60 %" in text and "-1, -1: 0 %" in text
    assert offset_map([[0, 0, 0]] * 3) == ""


def test_exposures_are_told(tmp_path):
    run = make_run(tmp_path)
    assert "exposed" not in check_page(write_report(run, views, make_rig())).text
    for most in (1.1, 1.25):
        run.log({"step": 40, "seconds": 120.0, "exposure": {"least": 0.8, "most": most}})
    text = check_page(write_report(run, views, make_rig())).text
    assert "exposed at 0.80 to 1.25 times the mean" in text


def test_the_page_moves_with_its_folder(tmp_path):
    run = make_run(tmp_path)
    write_report(run, views, make_rig())
    assert str(tmp_path) not in (run.path / "report.html").read_text()
    moved = tmp_path / "other" / "place"
    shutil.move(run.path, moved)
    check_page(moved / "report.html")


@pytest.mark.parametrize(("trained", "scored"), [(False, False), (True, False), (False, True)])
def test_what_is_not_there_is_left_out(tmp_path, trained, scored):
    run = make_run(tmp_path, trained, scored)
    page = check_page(write_report(run))
    assert ("Course of the training" in page.text) == trained
    assert "Held-out views" not in page.text and "Cameras" not in page.text
    assert ("PSNR" in page.text.split("rays a second")[0]) == scored and ("SSIM" in page.text) == scored
    assert ("not trained yet" in page.text) == (not trained and not scored)


def test_the_pictures_stay_until_they_are_of_other_views(tmp_path):
    run = make_run(tmp_path)
    write_report(run, views)
    assert len(check_page(write_report(run)).references) == 24
    metrics = run.read_json("metrics.json")
    metrics["per_image"][0]["psnr"] = 1.0  # another view is the worst now
    run.write_json("metrics.json", metrics)
    assert check_page(write_report(run)).references == []


def test_pictures_are_those_of_the_view_and_not_larger_than_needed(tmp_path):
    run = make_run(tmp_path)

    def wide(name):
        view, ones = views(name), np.ones((20, 20, 1))
        large = [np.kron(picture, ones) for picture in (view.render, view.truth, view.cells)]
        return View(*large, torch.from_numpy(np.kron(view.counts, ones[..., 0])).int())

    write_report(run, wide)
    worst = run.read_json("renders/report/views.json")["names"]["Worst"]
    written = cv2.imread(str(run.path / "renders/report/worst-truth.jpg"))[..., ::-1] / 255
    assert written.shape == (480, 640, 3)
    sizes = {cv2.imread(str(path)).shape for path in (run.path / "renders/report").glob("*.jpg")}
    assert sizes == {(480, 640, 3), (360, 480, 3)}
    assert np.abs(cv2.resize(written, (40, 30), interpolation=cv2.INTER_AREA) - pictures(worst)[1]).max() < 0.06


def test_worst_median_best():
    records = [{"name": str(psnr), "psnr": float(psnr)} for psnr in (30, 10, 50, 20, 40)]
    assert {label: record["name"] for label, record in pick_views(records).items()} == {
        "Worst": "10",
        "Median": "30",
        "Best": "50",
    }
    assert list(pick_views(records[:2])) == ["Worst", "Best"]
    assert list(pick_views(records[:1])) == ["Worst"]
    assert pick_views([]) == {}


def test_more_samples_are_lighter_and_none_are_black():
    counts = torch.tensor([[0, 1, 5, 10, 20, 40, 99]])
    light = heat_map(counts, 40).sum(-1)[0].astype(int)
    assert light[0] == 0 and np.all(np.diff(light[:6]) > 0) and light[5] == light[6]
    assert np.array_equal(heat_map(2 * counts, 80)[:, 2:], heat_map(counts, 40)[:, 2:])


def test_few_rays_exceed_the_scale_of_samples():
    counts = torch.poisson(torch.full((50, 50), 9.0), generator=torch.Generator().manual_seed(0)).int()
    most = most_of([counts, torch.zeros(50, 50).int()])
    assert float((counts > most).float().mean()) <= 0.01 and most <= 2 * int(counts.max())
    assert most_of([torch.zeros(3, 3).int()]) == 1


def test_error_map_grows_lighter_with_the_error():
    truth = np.zeros((1, 5, 3))
    render = np.linspace(0, 0.4, 5)[None, :, None] * np.ones(3)
    light = error_map(render, truth, 0.3).sum(-1)[0].astype(int)
    assert np.all(np.diff(light[:4]) > 0) and light[3] == light[4]
    assert np.array_equal(error_map(render, truth, 0.3), error_map(truth, render, 0.3))


# Charts


def numbers_of(svg: str, tag: str) -> list[list[float]]:
    """Coordinates of each element of this tag that has a path."""
    root = ElementTree.fromstring(svg)
    paths = [element.get("d") for element in root.iter(tag) if element.get("class", "").startswith("line")]
    return [[float(word) for word in path.replace("M", "").replace("L", " ").split()] for path in paths]


def test_a_curve_stays_in_its_frame_and_goes_the_right_way():
    x = list(range(1000))
    svg = line_chart("a < b", [Curve(x, [v**0.5 for v in x], "faint"), Curve(x, [v / 50 for v in x])])
    for points in numbers_of(svg, "path"):
        px, py = np.array(points[0::2]), np.array(points[1::2])
        assert len(px) <= 301
        assert px.min() >= 0 and px.max() <= 360 and py.min() >= 0 and py.max() <= 190
        assert np.all(np.diff(px) > 0) and np.all(np.diff(py) <= 0)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[], [None], [float("nan")], [5.0], [5.0, 5.0], [0.0, 0.0], [0.0, -1.0], [1e-9, 1e9]])
def test_charts_of_hardly_anything(log, y):
    svg = line_chart("t", [Curve(list(range(len(y))), y, dots=True)], log, low=None)
    if svg:
        ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg
    else:
        assert all(v is None or v != v or (log and v <= 0) for v in y)


def test_the_last_point_is_always_drawn():
    y = [0.0] * 1001 + [1.0]
    (points,) = numbers_of(line_chart("t", [Curve(list(range(1002)), y)]), "path")
    assert points[-1] < points[-3]


def test_ticks_are_round_inside_and_few():
    rng = np.random.default_rng(0)
    for low, span in zip(rng.uniform(-100, 100, 200), 10 ** rng.uniform(-3, 6, 200), strict=True):
        ticks = nice_ticks(low, low + span)
        assert 2 <= len(ticks) <= 8
        assert low - 1e-6 * span <= ticks[0] and ticks[-1] <= low + span * (1 + 1e-6)
    assert nice_ticks(3, 3) == [3]


def test_a_top_is_round_and_not_exceeded():
    for value in 10 ** np.random.default_rng(0).uniform(-3, 6, 200):
        assert value * (1 - 1e-6) <= nice_top(float(value)) <= 2 * value
    assert [nice_top(v) for v in (0, 0.5, 7, 11.2, 80)] == [0, 0.5, 7.5, 15, 100]


def test_numbers_for_people():
    assert [si(v) for v in (0, 0.5, 999.4, 999.6, 12345, 2e6, 3e9, None, float("nan"))] == [
        *("0", "0.5", "999", "1 k", "12.3 k", "2 M", "3 G", "–", "–")
    ]
    assert [duration(v) for v in (0.04, 59.9, 59.96, 3599.6, 7300, None)] == [
        *("0.0 s", "59.9 s", "1:00 min", "1:00 h", "2:01 h", "–")
    ]


def test_smoothing_keeps_constants_ends_and_gaps():
    assert smooth([2.0] * 50, 0.2) == [2.0] * 50
    values = [float(v) for v in range(100)]
    smoothed = smooth(values, 0.1)
    assert smoothed[0] == 0 and np.allclose(smoothed[:90], values[:90])
    assert smooth([1.0, None, float("nan"), 3.0], 1.0)[1:3] == [None, None]
    assert smooth([]) == []


@pytest.mark.parametrize("up", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 12, 300])
def test_cameras_are_drawn_inside_the_picture(up, n):
    for svg in rig_views(make_rig(n, up)):
        root = ElementTree.fromstring(svg)
        cameras = [e for e in root.iter("path") if e.get("class", "").startswith("camera")]
        assert len(cameras) == n
        for camera in cameras:
            words = camera.get("d").replace("M", " ").replace("L", " ").replace("Z", " ").split()
            x, y = np.array(words[0::2], float), np.array(words[1::2], float)
            assert x.min() >= 0 and x.max() <= 460 and y.min() >= 0 and y.max() <= 380


def test_the_side_view_has_up_on_top():
    rig = make_rig(8)
    rig.c2w[0, 2, 3] += 3  # the first camera, held out, is lifted along z
    root = ElementTree.fromstring(rig_views(rig)[1])
    heights = {}
    for e in root.iter("path"):
        if e.get("class", "").startswith("camera"):
            heights[float(e.get("d").split("M")[2].split()[1].split("L")[0])] = e.get("class")
    assert heights[min(heights)] == "camera b"
    labels = [e.text for e in root.iter("text") if e.get("class") == "label"]
    assert labels == ["x →", "z ↑"]


def test_a_huge_box_does_not_shrink_the_cameras():
    rig = make_rig(12)
    svg = rig_views(Rig(rig.c2w, 1000 * rig.aabb, rig.splits))[0]
    xs = [float(part.split()[0]) for part in svg.split('class="camera')[1].split('d="M')[1].split("L")[:4]]
    assert max(xs) - min(xs) > 2
