"""Archives in the layouts of older torch, kept in `tests/golden`."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import EXPORT_LINES
from tests.golden.make import FOLDER, MAKERS, network, samples
from tests.unit.engine.archives import Bomb, Entries, entries_of, pack
from worker.engine.formats.models import open_model

READ = sorted(set(MAKERS) - {"torch_2_2.pt2"})


@pytest.mark.parametrize("name", READ)
def test_an_older_archive_gives_the_network_it_was_made_of(name: str) -> None:
    model = open_model(FOLDER / name).model
    assert model is not None
    net, x = network(), samples()
    expected = torch.tensor(json.loads((FOLDER / "answers.json").read_text()))
    with torch.no_grad():
        assert torch.equal(model.module(x), net(x))
        assert torch.allclose(model.module(x), expected, atol=1e-6)
        more = torch.cat([x, x + 1])
        assert torch.equal(model.module(more), net(more))
    state = model.state_dict()
    assert model.fixed_batch is None
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    assert dict(model.tied) == {"second.weight": "first.weight"}
    parameters = {key for key, value in state.items() if isinstance(value, torch.nn.Parameter)}
    assert parameters == {key for key, _ in net.named_parameters(remove_duplicate=False)}
    assert all(state[key].requires_grad for key in parameters)


@pytest.mark.parametrize("name", ["torch_2_7.pt2", "torch_2_8.pt2"])
def test_torch_itself_reads_the_golden_archives(name: str) -> None:
    """They are as old torch wrote them, as far as the torch that is here can tell."""
    program = torch.export.load(FOLDER / name)
    assert torch.equal(program.module()(samples()), network()(samples()))


def test_what_no_newer_torch_reads_is_refused_with_the_lines_that_export_it() -> None:
    with pytest.raises(InvalidFile, match=r"torch 2\.2 or older") as caught:
        open_model(FOLDER / "torch_2_2.pt2")
    assert "\n".join(EXPORT_LINES) in caught.value.hint


def with_weights(folder: Path, entries: Entries, value: object) -> Path:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    entries["serialized_state_dict.pt"] = buffer.getvalue()
    return pack(folder / "changed.pt2", entries)


def test_pickles_in_older_archives_are_only_read_as_data(tmp_path: Path) -> None:
    entries = entries_of(FOLDER / "torch_2_7.pt2")
    marker = tmp_path / "ran"
    with pytest.raises(UnsafeFile, match="asks for"):
        open_model(with_weights(tmp_path, entries, {"conv.weight": Bomb(marker)}))
    assert not marker.exists()
    state = network().state_dict()
    with pytest.raises(InvalidFile, match="no tensor"):
        open_model(with_weights(tmp_path, entries, {**state, "conv.weight": 3}))
    with pytest.raises(InvalidFile, match=r"conv\.weight.* two different shapes"):
        open_model(with_weights(tmp_path, entries, {**state, "conv.weight": torch.ones(4)}))
    wide = torch.ones(1).expand(4, 1, 3, 3)
    with pytest.raises(InvalidFile, match="same memory for several"):
        open_model(with_weights(tmp_path, entries, {**state, "conv.weight": wide}))
    del state["conv.weight"]
    with pytest.raises(InvalidFile, match=r"values of conv\.weight are missing"):
        open_model(with_weights(tmp_path, entries, state))


def test_an_older_archive_without_weights_or_cut_short(tmp_path: Path) -> None:
    entries = entries_of(FOLDER / "torch_2_7.pt2")
    del entries["serialized_state_dict.pt"]
    with pytest.raises(InvalidFile, match="weights are missing"):
        open_model(pack(tmp_path / "a.pt2", entries))
    raw = (FOLDER / "torch_2_7.pt2").read_bytes()
    (tmp_path / "b.pt2").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InvalidFile, match="cut short"):
        open_model(tmp_path / "b.pt2")


def test_weights_named_json_as_torch_2_1_did(tmp_path: Path) -> None:
    entries = entries_of(FOLDER / "torch_2_4.pt2")
    for name in ("serialized_state_dict", "serialized_constants"):
        entries[f"{name}.json"] = entries.pop(f"{name}.pt")
    model = open_model(pack(tmp_path / "a.pt2", entries)).model
    assert model is not None
    assert torch.equal(model.module(samples()), network()(samples()))


def test_no_path_of_a_machine_is_in_the_golden_archives() -> None:
    for name in MAKERS:
        with zipfile.ZipFile(FOLDER / name) as archive:
            text = b"".join(archive.read(info) for info in archive.infolist())
        assert b"/site-packages/" not in text
        assert b"/home" not in text
