"""What the final training can be asked for: each part against an oracle, all through the stage."""

import itertools
import math

import pytest
import torch
from conftest import ROOT, TINY, experiment_of
from torch import nn

import ftd
from ftd import config, store
from ftd.config import Recipe, Train
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.models import cells, fitting, networks
from ftd.models.genotype import Genotype, Skeleton
from ftd.models.macs import forward_macs
from ftd.models.regularization import Regularization, auxiliary_head, paths_of, regularized
from ftd.parts import OPERATIONS, Operation
from ftd.stages import search, task, training
from ftd.stages.checking import Library
from ftd.store import resume
from ftd.tasks.augment import augmented
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.regression import Regression

ALL = {
    "optimizer": "sgd",
    "learning_rate": 0.025,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "flip": True,
    "crop": 1,
    "cutout": 3,
    "auxiliary": 0.4,
    "drop_path": 0.3,
    "cells": 5,
    "channels": 6,
    "with_val": True,
}
NORMAL = ((("sep_conv_3x3", 0),), (("skip_connect", 0), ("dil_conv_3x3", 1)))
REDUCTION = ((("max_pool_3x3", 0),), (("skip_connect", 0), ("none", 1)))
SMALL = Genotype(Skeleton.usual(3, 2, 4), NORMAL, REDUCTION)
TWO = Classes(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(genotype=SMALL, shape=(1, 8, 8), target=TWO):
    return cells.build(genotype, image_shape=shape, target=target, seed=0)


@pytest.fixture
def data(make_slice, digits):
    sliced = read_slice(make_slice("zero", {"other": "rest", "zero": [0]}))
    return TaskData(sliced, digits / "digits.safetensors", {"train": 60, "val": None})


def fitted(model, data, epochs=2, **keys):
    keys = {"epochs": epochs, "batch_size": 16, "learning_rate": 0.05, "seed": 3} | keys
    return fitting.fit(model, data, what="", resume=resume.Resume(None, {}), anneal=True, **keys)


def weights_of(model) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


# Settings -----------------------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_recorded():
    """Artifacts of before there were such keys are what they were."""
    assert set(Train().model_dump()) == {"samples", "epochs", "batch_size", "learning_rate"}
    asked = Train(**ALL).model_dump(mode="json")
    assert {key: asked[key] for key in ALL} == ALL and Train(**asked) == Train(**ALL)
    assert Train(drop_path=0.0, cells=None).model_dump() == Train().model_dump()


def test_settings_of_cells_decide_no_hand_designed_network(tmp_path):
    methods = {"methods": ["random", "vgg16-x0.1"]}
    plain = experiment_of(tmp_path, search=methods, train={"cutout": 3})
    more = experiment_of(tmp_path, search=methods, train=ALL)
    cut = experiment_of(tmp_path, search=methods, train={"cutout": 2})
    found = {
        method: [
            training.decides(each, method=method, task="zero", seed=0)["settings"]
            for each in (plain, more, cut)
        ]
        for method in methods["methods"]
    }
    assert found["random"][1] == Train(**ALL).model_dump(mode="json")
    own = {"cells", "channels", "auxiliary", "drop_path"}
    assert set(found["random"][1]) - set(found["vgg16-x0.1"][1]) == own
    assert found["vgg16-x0.1"][0] == found["random"][0] != found["vgg16-x0.1"][2]


# Optimiser ----------------------------------------------------------------------------------------


def test_without_options_it_is_adam_s_plain_loop(data):
    ours, theirs = built(), built()
    fitted(ours, data)
    optimizer, generator = torch.optim.Adam(theirs.parameters(), 0.05), seeded(3)
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * epoch / 2))
        for images, labels in data.batches("train", 16, generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs(images), labels).backward()
            optimizer.step()
    assert torch.equal(weights_of(ours), weights_of(theirs))


def test_sgd_is_torch_s_plain_loop(data):
    ours, theirs = built(), built()
    more = {"momentum": 0.8, "weight_decay": 0.01, "clip": 0.5}
    fitted(ours, data, 3, recipe=Recipe(optimizer="sgd", **more))
    optimizer = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.8, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    generator, clipped = seeded(3), []
    for _ in range(3):
        for images, labels in data.batches("train", 16, generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs(images), labels).backward()
            clipped.append(float(nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)) > 0.5)
            optimizer.step()
        schedule.step()
    assert any(clipped)
    torch.testing.assert_close(weights_of(ours), weights_of(theirs))


@pytest.mark.parametrize("changed", [{"weight_decay": 0.1}, {"clip": 0.01}, {"optimizer": "sgd"}])
def test_every_key_of_the_optimiser_matters(data, changed):
    plain, other = built(), built()
    fitted(plain, data, 1)
    fitted(other, data, 1, recipe=Recipe(**changed))
    assert not torch.equal(weights_of(plain), weights_of(other))


# Augmentation -------------------------------------------------------------------------------------


def test_shifted_images_are_not_mirrored_and_mirrored_ones_not_shifted():
    images, labels = torch.rand(200, 1, 6, 6) + 1, torch.arange(200)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    shifts = [
        padded[:, :, top : top + 6, left : left + 6]
        for top, left in itertools.product(range(5), range(5))
    ]
    moved, kept = augmented(images, labels, TWO, Recipe(crop=2), seeded())
    hits = torch.stack([(moved == each).flatten(1).all(1) for each in shifts])
    assert (hits.sum(0) == 1).all() and torch.equal(kept, labels)
    assert (hits.sum(1) > 0).all()  # all of the 25, in 200 draws
    mirrored, _ = augmented(images, labels, TWO, Recipe(flip=True), seeded())
    turned = (mirrored == images.flip(3)).flatten(1).all(1)
    assert (turned | (mirrored == images).flatten(1).all(1)).all() and 60 < turned.sum() < 140


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_square_is_cut_out_around_any_pixel(side):
    whole, count = 8, 4000
    images, labels = torch.rand(count, 3, whole, whole) + 1, torch.arange(count)
    cut, kept = augmented(images, labels, TWO, Recipe(cutout=side), seeded())
    hidden = cut == 0
    assert torch.equal(cut[~hidden], images[~hidden]) and torch.equal(kept, labels)
    assert (hidden == hidden[:, :1]).all()  # in all channels
    rows, columns = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), rows * columns)
    assert {rows.min().item(), rows.max().item()} == {(side + 1) // 2, side}
    within = [
        sum(0 <= centre - side // 2 + step < whole for step in range(side))
        for centre in range(whole)
    ]
    share = (sum(within) / whole) ** 2 / whole**2
    assert hidden.double().mean().item() == pytest.approx(share, rel=0.05)


def test_images_to_be_augmented_are_not_written_into():
    images = torch.rand(8, 1, 6, 6)
    before = images.clone()
    augmented(images, torch.arange(8), TWO, Recipe(flip=True, crop=1, cutout=3), seeded())
    assert torch.equal(images, before)


def test_targets_that_cannot_be_mirrored_are_refused_only_if_images_are():
    images, targets = torch.rand(4, 1, 6, 6), torch.rand(4, 5)
    assert torch.equal(augmented(images, targets, object(), Recipe(crop=1), seeded())[1], targets)
    with pytest.raises(UserError, match=r"train\.flip: this kind of target has no method"):
        augmented(images, targets, object(), Recipe(flip=True), seeded())


# Drop path ----------------------------------------------------------------------------------------


def test_a_dropped_path_is_0_for_a_sample_and_its_mean_stays():
    path, dropping = nn.Conv2d(1, 2, 3), Regularization(TWO, 0.0, nn.Identity())
    path.register_forward_hook(dropping.drop)
    images = torch.rand(5000, 1, 4, 4)
    plain = path(images)
    dropping.rate = 0.25
    torch.manual_seed(0)
    found = path(images)
    dropped = (found == 0).flatten(1).all(1)
    torch.testing.assert_close(found[~dropped], plain[~dropped] / 0.75)
    assert dropped.double().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(found.mean((0, 2, 3)), plain.mean((0, 2, 3)), rtol=0.03, atol=0)
    assert torch.equal(path.eval()(images), plain)


def test_paths_are_dropped_ever_more_often_but_never_a_map_as_it_is(data, monkeypatch):
    model, rates, epoch = built(), [], fitting.train_epoch

    def recording(*arguments):
        hooks = [hook for path in paths_of(model) for hook in path._forward_hooks.values()]
        rates.extend({hook.__self__.rate for hook in hooks})
        return epoch(*arguments)

    monkeypatch.setattr(fitting, "train_epoch", recording)
    fitted(model, data, 4, recipe=Recipe(drop_path=0.4))
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])  # one at a time, the same everywhere
    assert not any(module._forward_hooks for module in model.modules())
    kinds = {type(path) for path in paths_of(model)}
    assert nn.Identity not in kinds and len(paths_of(model)) == 2 + 2 * 2
    assert any(isinstance(module, nn.Identity) for module in model.modules())


# Auxiliary head -----------------------------------------------------------------------------------


def test_the_second_head_is_darts_s():
    """On 8×8 maps; the parameters of its AuxiliaryHeadCIFAR by hand."""
    model = built(SCALED, (3, 32, 32), Classes(10))
    head = auxiliary_head(model, 13, (32, 32), Classes(10), 0)
    assert model.maps[13] == (576, 8, 8) and head(torch.rand(2, 576, 8, 8)).shape == (2, 10)
    parts = 576 * 128, 2 * 128, 128 * 768 * 2 * 2, 2 * 768, 768 * 10 + 10
    assert sum(p.numel() for p in head.parameters()) == sum(parts)


@pytest.mark.parametrize("side", [4, 7, 8, 28, 40])
def test_the_second_head_fits_any_map(side):
    model = built(shape=(1, side, side))
    for position in range(3):
        head = auxiliary_head(model, position, (side, side), TWO, 0)
        assert head(torch.rand(2, *model.maps[position])).shape == (2, 2)


def test_a_second_head_of_maps_is_the_target_s_own():
    target = Dense(Regression(2, [0.0, 0.0], [1.0, 1.0], "explained"))
    model = built(shape=(1, 8, 8), target=target)
    head = auxiliary_head(model, 1, (8, 8), target, 0)
    assert head(torch.rand(3, *model.maps[1])).shape == (3, 2, 8, 8)


def test_the_second_loss_reaches_the_cells_before_it_and_is_gone_afterwards(data):
    deep = Genotype(SMALL.skeleton.scaled(6), NORMAL, REDUCTION)
    model, plain = built(deep), built(deep)
    images, labels = next(data.batches("train", 16))
    with regularized(model, data, Recipe(auxiliary=0.4), 0) as extra:
        outputs = model.train()(images)
        both = extra.loss(outputs, labels)
        alone = nn.functional.cross_entropy(outputs, labels)
        second = nn.functional.cross_entropy(extra.head(extra._map), labels)
        torch.testing.assert_close(both, alone + 0.4 * second)
        second.backward()
    gradients = [[p.grad for p in cell.parameters()] for cell in model.cells]
    for position, found in enumerate(gradients):  # it lies on the fifth of six cells
        assert all((g is not None and g.any()) == (position < 5) for g in found), position
    assert model.stem[0].weight.grad.any() and model.head.linear.weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_the_second_head_leaves_the_network_s_own_start_and_random_state(data):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    model = built()
    with regularized(model, data, Recipe(auxiliary=0.4, drop_path=0.2), 0) as extra:
        again = auxiliary_head(model, 2, (8, 8), TWO, 0)
        assert torch.equal(weights_of(extra.head), weights_of(again))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights_of(model), weights_of(built()))


# Another skeleton ---------------------------------------------------------------------------------

# The cells of DARTS (Liu et al. 2019, second order, on CIFAR-10), as its repository gives them.
DARTS_NORMAL = (
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("skip_connect", 0), ("sep_conv_3x3", 1)),
    (("skip_connect", 0), ("dil_conv_3x3", 2)),
)
DARTS_REDUCTION = (
    (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    (("max_pool_3x3", 1), ("skip_connect", 2)),
    (("max_pool_3x3", 0), ("skip_connect", 2)),
    (("max_pool_3x3", 1), ("skip_connect", 2)),
)
SEARCHED = Skeleton.usual(8, 4, 16, feeds=2, fan_in=2)
SCALED = Genotype(SEARCHED.scaled(20, 36), DARTS_NORMAL, DARTS_REDUCTION)


def darts_parameters(cells: int, c: int, labels: int) -> int:
    """Of DARTS' network of these cells, summed by hand."""
    total, older, last = 3 * 3 * c * 9 + 2 * 3 * c, 3 * c, 3 * c
    for position in range(cells):
        reduction = position in (cells // 3, 2 * cells // 3)
        c *= 2 if reduction else 1
        total += older * c + last * c + 2 * 2 * c  # 1×1 convolutions (or two of half of it), norms
        once = 9 * c + c * c + 2 * c  # depthwise, pointwise, norm
        if not reduction:  # five separable convolutions, each of two, and a dilated one
            total += 5 * 2 * once + once
        # in the reduction cell all skips are on its first node, whose map is halved
        older, last = last, 4 * c
    return total + last * labels + labels


def test_twenty_cells_have_the_parameters_of_darts_network():
    assert SCALED.skeleton == Skeleton.usual(20, 4, 36, feeds=2, fan_in=2)
    assert SCALED.skeleton.reductions == (6, 13)
    model = built(SCALED, (3, 32, 32), Classes(10))
    found = sum(p.numel() for p in model.parameters())
    assert found == darts_parameters(20, 36, 10)
    assert round(found / 1e6, 1) == 3.3  # as published


@pytest.mark.parametrize(("own", "positions"), [((1, 2), (3, 6)), ((1,), (5,)), ((), ())])
def test_reductions_are_spread_over_another_depth(own, positions):
    skeleton = Skeleton(3, 2, 4, own)
    assert skeleton.scaled(10) == Skeleton(10, 2, 4, positions)
    assert skeleton.scaled(None, 7) == Skeleton(3, 2, 7, own) and skeleton.scaled() == skeleton


# Through the stage --------------------------------------------------------------------------------


@pytest.fixture
def searched(digits, tmp_path):
    """A function of keys of ``train`` → the tiny experiment, an architecture found by chance."""

    def of(folder="a", train=None, **keys):
        keys = {"methods": ["random", "vgg16-x0.1"]} | keys
        common = TINY["search"] | {"space": {"nodes": [2], "channels": [4]}}
        experiment = experiment_of(
            tmp_path / folder,
            digits.parent,
            search=common | {"random": {"candidates": 2}} | keys,
            train={"epochs": 2, "samples": 60} | (train or {}),
        )
        task.run(experiment, task="zero")
        for method in experiment.config.search.methods:
            search.run(experiment, task="zero", method=method, seed=0, donors={})
        return experiment

    return of


def place(method="random"):
    return {"task": "zero", "method": method, "seed": 0}


def problems(experiment, method="random"):
    names = {key: str(value) for key, value in place(method).items()}
    library = Library(experiment.root, experiment)
    return [
        problem
        for artifact, check in training.CHECKS
        for problem in check(artifact.path(experiment.root, **names), names, library)
    ]


def test_all_options_at_once(searched):
    experiment = searched(train=ALL)
    metrics = training.run(experiment, **place())
    path = experiment.output(LAYOUT.weights, **place())
    model, facts = training.load(path)
    found = store.read_json(experiment.output(LAYOUT.genotype, **place()))["genotype"]
    assert found["skeleton"]["cells"] == 3 and found["skeleton"]["channels"] == 4
    wanted = found["skeleton"] | {"cells": 5, "channels": 6, "reductions": [1, 3]}
    assert metrics["genotype"] == facts["genotype"] == found | {"skeleton": wanted}
    assert len(model.cells) == 5 and model.stem[0].out_channels == 18
    plain = built(Genotype.from_json(found | {"skeleton": wanted}))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert metrics["parameters"] == sum(p.numel() for p in plain.parameters())
    assert metrics["macs"] == forward_macs(plain, (1, 8, 8))
    assert metrics["val_accuracy"] is None and 0 <= metrics["accuracy"] <= 1
    assert ftd.load(path)(torch.zeros(2, 1, 8, 8)).shape == (2, 2)
    assert problems(experiment) == []
    other = experiment_of(experiment.root, experiment.base, search=experiment.config.search)
    assert any(
        "made with other training settings (auxiliary, cells, ch" in p for p in problems(other)
    )


def test_a_hand_designed_network_takes_what_it_can(searched):
    experiment = searched(train=ALL)
    network = place("vgg16-x0.1")
    metrics = training.run(experiment, **network)
    model, _ = training.load(experiment.output(LAYOUT.weights, **network))
    plain = networks.build("vgg16-x0.1", image_shape=(1, 8, 8), target=TWO, seed=0)
    assert metrics["parameters"] == sum(p.numel() for p in plain.parameters())
    assert model.state_dict().keys() == plain.state_dict().keys()
    settings = store.read_json(experiment.output(LAYOUT.metrics, **network))["settings"]
    assert settings["cutout"] == 3 and "drop_path" not in settings
    assert metrics["val_accuracy"] is None and problems(experiment, "vgg16-x0.1") == []


def test_an_architecture_that_is_searched_again_is_found(searched):
    experiment = searched(train=ALL)
    training.run(experiment, **place())
    path = experiment.output(LAYOUT.genotype, **place())
    found = store.read_json(path)
    first = found["genotype"]["normal"][0][0]
    first[0] = "skip_connect" if first[0] != "skip_connect" else "max_pool_3x3"
    store.write_json(path, found)
    assert [problem for problem in problems(experiment) if "made from another genotype" in problem]


def test_a_stopped_training_goes_on_to_the_same_weights(searched, monkeypatch):
    experiment = searched("a", train=ALL | {"epochs": 3})
    training.run(experiment, **place())
    whole = experiment.output(LAYOUT.weights, **place()).read_bytes()
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    epoch, calls = fitting.train_epoch, []

    def stop_in_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return epoch(*arguments)

    again = searched("b", train=ALL | {"epochs": 3})
    monkeypatch.setattr(fitting, "train_epoch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        training.run(again, **place())
    path = again.output(LAYOUT.weights, **place())
    assert path.with_name("weights.resume").exists() and not path.exists()
    training.run(again, **place())
    assert len(calls) == 4  # one more epoch was left
    assert path.read_bytes() == whole


def test_val_is_trained_on_if_asked_for_and_test_never(searched, monkeypatch):
    seen, epoch = [], fitting.train_epoch

    def recording(data, *arguments):
        seen.append(data)
        return epoch(data, *arguments)

    monkeypatch.setattr(fitting, "train_epoch", recording)
    for with_val in (False, True):
        experiment = searched(train={"samples": None, "epochs": 1, "with_val": with_val})
        training.run(experiment, **place())
    part = read_slice(experiment.output(LAYOUT.slice, task="zero")).part
    without, both = (data.count("train") for data in seen)
    assert without == (part == "train").sum()
    assert both == without + (part == "val").sum()
    assert {data.count("test") for data in seen} == {(part == "test").sum()}
    assert seen[0].count("val") == both - without
    with pytest.raises(KeyError):
        seen[1].count("val")


def test_operations_of_one_s_own_work_with_all_of_it(searched, registered):
    def own(channels, stride):
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride, padding=1), nn.BatchNorm2d(channels)
        )

    registered(OPERATIONS, "own", Operation(own))
    space = {"operations": ["own"], "nodes": [2], "channels": [4]}
    experiment = searched(train=ALL, methods=["random"], space=space)
    metrics = training.run(experiment, **place())
    assert Genotype.from_json(metrics["genotype"]).operations == {"own"}
    model, _ = training.load(experiment.output(LAYOUT.weights, **place()))
    assert len(paths_of(model)) == 5 * 3 and problems(experiment) == []


# The overlay --------------------------------------------------------------------------------------


def test_the_published_evaluation_of_darts():
    files = "cifar10.yaml", "overlays/darts-evaluation.yaml"
    found = config.load(*(ROOT / "config" / file for file in files)).train
    assert (found.cells, found.channels, found.epochs, found.batch_size) == (20, 36, 600, 96)
    assert (found.optimizer, found.learning_rate, found.momentum) == ("sgd", 0.025, 0.9)
    assert (found.weight_decay, found.clip, found.cutout) == (3e-4, 5, 16)
    assert (found.auxiliary, found.drop_path) == (0.4, 0.2)
    assert found.flip and found.crop == 4 and found.with_val and found.samples is None
