"""The overview: what was found for every task, from the artifacts of a finished experiment."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, experiment_of, tables_of
from PIL import Image

from ftd import config, store
from ftd.drawing.diagram import diagrams
from ftd.drawing.findings import Finding, Source, Trained, large, seconds, sentence, with_spread
from ftd.drawing.thumbnails import strip
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import overview, selection
from ftd.stages.experiment import Experiment
from ftd.stages.pictures import samples
from ftd.tasks.slices import read_slice

FOUND = Trained("ftd-nas", True, [0.9, 0.8], 0.5, [12345, 12347], [1, 1], [3.72e9] * 2, [90, 30])
HAND = Trained("resnet18", False, [0.7], 0.5, [1000], [10], [0], [0])


def finding(**changes) -> Finding:
    sources = [Source("far", 0.1, 0.01, 0.6, False), Source("near", 0.2, 0.03, 0.4, True)]
    own = {"task": "six", "dataset": "digits", "about": "2 labels", "counts": {"train": 1}}
    own |= {"before": 1, "measure": "fisher", "number": "distance", "higher": False, "trials": 5}
    own |= {"sources": sources, "chosen": ["near"], "trained": [HAND, FOUND]}
    return Finding(**own | changes)


def test_a_sentence_names_the_chosen_task_and_the_found_network():
    assert sentence(finding()) == (
        "Nearest of the tasks before it is near (distance 0.200 ± 0.030, first of all sources in 2 "
        "of 5 trials); ftd-nas found a network of 12,346 parameters that scores 85.0 % on test (a "
        "constant answer: 50.0 %), for 3.72 G multiply-accumulates, 1 min."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chosen": [], "before": 0}, "It came first, so no task had been learned; nearest of all"),
        ({"sources": [], "chosen": []}, "There is no other task; ftd-nas found"),
        ({"trained": []}, "trials); no architecture was searched for it."),
        ({"trained": [HAND]}, "; resnet18, hand-designed, with 1,000 parameters scores 70.0 %"),
        ({"trials": 1}, "near (distance 0.2, by one trial);"),
    ],
)
def test_sentences_of_what_was_not_run(changes, said):
    assert said in sentence(finding(**changes))


def test_numbers_for_readers():
    assert [large(n) for n in (0, 999, 999_600, 3.722e9, 4.25e13)] == [
        *("0", "999", "1.00 M", "3.72 G", "42.5 T")
    ]
    assert [seconds(n) for n in (0.25, 90, 7200)] == ["0.25 s", "1.5 min", "2 h"]
    assert with_spread(0.12345, 0.0123, 3) == "0.123 ± 0.012" and with_spread(20, 0, 3) == "20 ± 0"
    assert with_spread(1234.5, 321, 3) == "1234 ± 321" and with_spread(0.12345, 0, 1) == "0.1235"


def test_a_diagram_has_a_line_for_every_operation_but_none():
    cell = [[["none", 0], ["conv", 1]], [["pool", 0], ["skip", 2]]]
    genotype = {"normal": cell, "reduction": [], "skeleton": {"feeds": 2}}
    normal, reduction = diagrams(genotype)
    assert [name for _, name in normal.states] == ["in 0", "in 1", "1", "2"]
    at = {name: place for place, name in normal.states}
    lines = [(line.text, line.start, line.end) for line in normal.lines]
    assert lines == [
        *(("conv", at["in 1"], at["1"]), ("pool", at["in 0"], at["2"])),
        ("skip", at["1"], at["2"]),
    ]
    assert len({line.y for line in normal.lines}) == 3  # no two lie on each other
    assert normal.words.endswith("conv from in 1 to 1, pool from in 0 to 2, skip from 1 to 2")
    assert reduction.lines == [] and "no operation" in reduction.words


def pixels(source: str) -> np.ndarray:
    content = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_shown_as_they_are(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, channels, 8, 8), dtype=np.uint8)
    found = strip("x", images)
    assert found.count == 3 and max(map(len, found.source.splitlines())) < 10_000
    shown = pixels(found.source)
    assert shown.shape == (8, 3 * 8 + 2, 4)
    for place, image in enumerate(images):
        own = shown[:, 9 * place : 9 * place + 8]
        assert (own[..., :3] == np.moveaxis(image, 0, -1)).all() and (own[..., 3] == 255).all()
    assert not shown[:, 8, 3].any()  # between two, nothing


def test_large_images_are_made_smaller():
    images = np.full((20, 3, 224, 224), 200, np.uint8)
    found = strip("x", images)
    assert pixels(found.source).shape[:2] == (48, 20 * 48 + 19 * 6) and len(found.source) < 20_000


def test_pages_of_many_tasks_have_fewer_images(make_slice, digits):
    path = make_slice("many", "all")
    own = read_slice(path)
    named = [replace(own, facts=own.facts | {"task": str(number)}) for number in range(50)]
    experiment = experiment_of(digits.parent)
    [few] = samples(experiment, named[:1], images=8, labels=4).values()
    assert [row.count for row in few.strips] == [8] * 4 and few.more == 6
    many = samples(experiment, named, images=8, labels=4)
    assert len(many) == 50 and [row.count for row in many["7"].strips] == [6] * 2


# On a finished experiment -----------------------------------------------------------------------


def of(finished, folder, **sections) -> Experiment:
    """Its artifacts, by another configuration."""
    return Experiment(config.parse(TINY | sections), folder, base=finished.results)


def made(experiment: Experiment):
    overview.run(experiment)
    return experiment.root / "overview.html"


def test_the_overview_says_what_the_artifacts_say(finished, tmp_path):
    page = finished.results / "overview.html"
    text, tables = page.read_text(), tables_of(page)
    names = list(TINY["tasks"])
    assert re.findall(r"<h2>\d\. (.*)</h2>", text) == names
    nearest = store.read_table(finished.results / "nearest.parquet").to_pandas()
    answers = tables.pop(0)
    chosen = store.read_json(finished.results / "selection.json")
    assert answers["task"] == names
    assert answers["nearest learned task"] == ["".join(chosen[t]["nearest"][:1]) for t in names]
    for place, task in enumerate(names):
        assert f'<a href="#task-{place + 1}">{task}</a>' in text
        sources, networks = tables[2 * place : 2 * place + 2]
        assert answers["test accuracy %"][place] in networks["test accuracy %"]
        assert answers["parameters"][place] in networks["parameters"]
        ranks = nearest[nearest["target"] == task]
        assert sources["task"] == list(ranks["source"])
        assert sources["squared fisher distance"] == [f"{value:.4g}" for value in ranks["mean"]]
        metrics = store.read_json(finished.results / f"final/ftd-nas/{task}/0/metrics.json")
        assert networks["test accuracy %"] == [f"{100 * metrics['accuracy']:.1f}"]
        assert networks["constant answer %"] == [f"{100 * metrics['most_frequent']:.1f}"]
        assert networks["parameters"] == [f"{metrics['parameters']:,}"]
        for label in TINY["tasks"][task]["labels"]:
            assert f'alt="8 images of {task}: {label}"' in text
    assert text.count("<svg") == 6
    assert made(of(finished, tmp_path)).read_bytes() == page.read_bytes()


def test_tasks_that_were_not_searched(finished, tmp_path):
    search = TINY["search"] | {"tasks": ["six"]}
    text = made(of(finished, tmp_path, search=search)).read_text()
    assert text.count("No architecture was searched for this task") == 2
    assert text.count("<svg") == 2


def test_a_lone_task(finished, tmp_path):
    alone = of(finished, tmp_path, tasks={"zero": TINY["tasks"]["zero"]})
    selection.run(alone)
    page = made(alone)
    text = page.read_text()
    assert "There is no other task to compare it with" in text and len(tables_of(page)) == 1
    assert text.count("<section") == 1


def test_networks_over_seeds_beside_hand_designed_ones(finished, tmp_path, monkeypatch):
    seeds = TINY["search"] | {"methods": ["resnet18-x0.05", "ftd-nas"], "seeds": [0, 1]}
    experiment = of(finished, tmp_path, search=seeds, tasks={"zero": TINY["tasks"]["zero"]})
    selection.run(experiment)
    metrics = {"accuracy": 0.5, "most_frequent": 0.25, "parameters": 10, "macs": 7}
    metrics |= {"search_macs": 100, "search_seconds": 1.0}
    read = lambda _, seed, **names: ({**metrics, "accuracy": 0.5 + int(seed) / 10}, {})  # noqa: E731
    monkeypatch.setattr(overview, "metrics_of", read)
    monkeypatch.setattr(overview, "expect_asked", lambda *_: None)
    for method, genotype in (("resnet18-x0.05", None), ("ftd-nas", "own")):
        path = LAYOUT.genotype.path(finished.results, method="ftd-nas", task="zero", seed=0)
        found = store.read_json(path) | ({"genotype": None} if genotype is None else {})
        names = {"method": method, "task": "zero", "seed": 0}
        store.write_json(experiment.output(LAYOUT.genotype, **names), found)
    page = made(experiment)
    [networks] = tables_of(page)
    assert networks["network"] == ["resnet18-x0.05", "ftd-nas"]
    assert networks["test accuracy %"] == ["55.0 ± 7.1"] * 2
    assert networks["search MACs"] == ["", "100"] and page.read_text().count("<svg") == 2
    assert "ftd-nas found a network of 10 parameters" in page.read_text()


def test_accuracies_are_those_of_finished_networks_alone(finished, tmp_path):
    longer = TINY["train"] | {"epochs": 9}
    with pytest.raises(UserError, match=r"metrics\.json: .*epochs"):
        made(of(finished, tmp_path, train=longer))
    with pytest.raises(UserError, match=r"no such file; make it by: ftd "):
        made(Experiment(config.parse(TINY), tmp_path / "none", base=tmp_path / "part"))


def test_what_is_shown_decides_the_page(tmp_path):
    own = overview.decides(experiment_of(tmp_path))
    tasks = dict(reversed(TINY["tasks"].items()))
    assert overview.decides(experiment_of(tmp_path, tasks=tasks)) != own
    search = TINY["search"] | {"tasks": ["six"]}
    assert overview.decides(experiment_of(tmp_path, search=search)) != own
    assert overview.decides(experiment_of(tmp_path, data_root="elsewhere")) == own


def test_findings_are_there_for_other_readers(finished):
    found = overview.findings(Experiment(config.parse(TINY), finished.results))
    assert [each.task for each in found] == list(TINY["tasks"])
    chosen = store.read_json(finished.results / "selection.json")
    assert [each.chosen for each in found] == [chosen[each.task]["nearest"] for each in found]
    slices = store.read_table(finished.results / "tasks" / "six.parquet")
    counts = dict(zip(*np.unique(slices["part"].to_pylist(), return_counts=True), strict=True))
    assert found[1].counts == counts and isinstance(slices, pa.Table)


@pytest.mark.parametrize("std", [0.0, 0.00012, 0.5, 12.0])
@pytest.mark.parametrize("mean", [0.0, -3.25, 12345.678])
def test_two_digits_of_the_deviation_are_kept(mean, std):
    words = with_spread(mean, std, 3).split(" ± ")
    assert float(words[0]) == pytest.approx(mean, abs=max(std, abs(mean)) / 20)
    assert float(words[1]) == pytest.approx(std, rel=0.05)
