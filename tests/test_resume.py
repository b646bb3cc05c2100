"""States of long jobs: what was stopped goes on as if it had not been; no other state is used."""

import pytest
import torch
from torch import nn

from ftd import store
from ftd.store import resume
from ftd.store.resume import Resume

EPOCHS = 5


class Job:
    """A small training whose course depends on weights, moments, buffers and both generators."""

    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.adam = torch.optim.Adam(self.model.parameters(), 0.1)
        self.generator = torch.Generator().manual_seed(seed)
        self.losses = []

    @property
    def parts(self) -> tuple:
        return {"model": self.model}, {"adam": self.adam}, self.generator

    def run(self, state: Resume, stop: int = EPOCHS) -> dict:
        """Train until so many epochs; returns everything that can be told apart."""
        self.losses = state.load(*self.parts).get("losses", [])
        while len(self.losses) < stop:
            self.adam.zero_grad()
            loss = self.model(torch.randn(8, 4, generator=self.generator)).square().sum()
            loss.backward()
            self.adam.step()
            self.losses.append(loss.item())
            state.keep(*self.parts, {"losses": self.losses})
        return {name: value.tolist() for name, value in self.state().items()}

    def state(self) -> dict[str, torch.Tensor]:
        return dict(resume._state(*self.parts)) | {"losses": torch.tensor(self.losses)}


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)


def test_a_stopped_job_goes_on_to_the_same_end(tmp_path, often, capsys):
    whole = Job().run(Resume(None, {}))
    path = tmp_path / "job.resume"
    Job().run(Resume(path, {"of": "this"}), stop=3)
    torch.manual_seed(77)  # whatever the process drew before
    again = Job(seed=5)
    assert again.run(Resume(path, {"of": "this"})) == whole
    assert len(again.losses) == EPOCHS
    assert f"going on from {path}" in capsys.readouterr().err


def test_a_state_lies_beside_the_result_and_goes_with_its_end(tmp_path, often):
    state = Resume.beside(tmp_path / "zero.safetensors", {})
    Job().run(state, stop=1)
    assert [path.name for path in tmp_path.iterdir()] == ["zero.resume"]
    state.done()
    assert not list(tmp_path.iterdir())
    state.done()  # nor is it an error where nothing was kept


def test_a_state_is_kept_once_a_minute_of_work(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    state, job = Resume(tmp_path / "state", {}), Job()
    job.run(state, stop=1)
    assert not state.path.exists()
    now[0] += resume.KEEP_EVERY
    job.run(state, stop=2)
    first = state.path.read_bytes()
    now[0] += resume.KEEP_EVERY / 2
    job.run(state, stop=3)
    assert state.path.read_bytes() == first


def test_nothing_is_kept_without_a_path(tmp_path, often, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = Resume(None, {})
    Job().run(state)
    state.done()
    assert not list(tmp_path.iterdir())


def untouched(path, decides: dict) -> bool:
    """Whether loading does nothing to a fresh job."""
    job = Job(seed=3)
    before = {name: value.clone() for name, value in job.state().items()}
    assert Resume(path, decides).load(*job.parts) == {}
    after = job.state()
    return before.keys() == after.keys() and all(
        torch.equal(value, after[name]) for name, value in before.items()
    )


def test_a_state_of_other_facts_or_a_damaged_one_is_not_taken_up(tmp_path, often, capsys):
    path = tmp_path / "state"
    assert untouched(path, {})
    Job().run(Resume(path, {"seed": 0}), stop=2)
    assert untouched(path, {"seed": 1})
    path.write_bytes(path.read_bytes()[:-1])
    assert untouched(path, {"seed": 0})
    assert f"{path}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["model model.0.w", "optimizer adam.0.exp", "random_cpu"])
def test_a_state_whose_shapes_do_not_fit_changes_nothing(tmp_path, often, capsys, part):
    path = tmp_path / "state"
    Job().run(Resume(path, {}), stop=2)
    tensors, facts = store.read_tensors(path)
    name = next(name for name in tensors if name.startswith(part))
    store.write_tensors(path, tensors | {name: torch.zeros(7, 3)}, facts)
    assert untouched(path, {})
    assert "not a state of this job" in capsys.readouterr().err
