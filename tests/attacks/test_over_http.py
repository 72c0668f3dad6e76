"""Hostile files through the front door: each fails with its sentence, and the server goes on.

What each file does is tried alone in the other tests; here they go the whole way, one after the
other, through a server and a worker that have to outlive them all.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.attacks import kit, pickles, zips
from tests.attacks.doors import images, npz
from tests.attacks.exported import answering, sound, tensor, written
from tests.attacks.test_csv_bombs import TABLES
from tests.attacks.test_image_bombs import IMAGES
from tests.attacks.test_sizes_in_pth import LIES, state_dict
from tests.attacks.test_sizes_in_pth import tensor as stored
from tests.attacks.test_sizes_in_pth import written as saved
from tests.attacks.test_sizes_in_safetensors import sound as header
from tests.attacks.test_sizes_in_safetensors import written as with_header
from tests.attacks.test_zip_bomb import packed_zeros
from tests.support.live import LiveServer, finished, until
from tests.unit.engine.archives import WEIGHTS, call


def hostile_models(folder: Path, canary: kit.Canary) -> dict[str, Path]:
    def place(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    evil = {"path_name": "weight_9", "is_param": True, "use_pickle": True, "tensor_meta": None}
    pickled = sound().changed(lambda r: r["config"].update({"9.weight": evil}), WEIGHTS)
    name = {"as_string": str(canary.marker)}
    reads = call("torch.ops.aten.from_file.default", "evil", ("filename", name))
    crash = call("torch.ops.aten.relu.default", "evil", ("self", tensor("nobody")))
    files = {
        "pickled weight": written(place("a"), pickled),
        "reads files": written(place("b"), sound().changed(lambda r: answering(r, reads))),
        "makes no sense": written(place("c"), sound().changed(lambda r: answering(r, crash))),
        "size lie": saved(place("d"), state_dict(stored(*LIES["a terabyte"])), "zip"),
        "stride 0": saved(place("e"), state_dict(stored(*LIES["strides 0"])), "before zips"),
        "header of 2^63": with_header(place("f"), header(), length=(1 << 63) - 1),
    }
    for number, (way, body) in enumerate(pickles.ways(canary.command).items()):
        if number % 5 == 0:
            files[way] = folder / f"{number}.pth"
            files[way].write_bytes(pickles.state_dict_with(body))
    files["bare pickle"] = folder / "bare.pt2"
    files["bare pickle"].write_bytes(pickles.whole(pickles.shell(canary.command)))
    return files


def hostile_datasets(folder: Path, canary: kit.Canary) -> dict[str, tuple[Path, dict]]:
    def kept(name: str, raw: bytes) -> Path:
        (folder / name).write_bytes(raw)
        return folder / name

    npy = b"\x93NUMPY\x01\x00\x40\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    objects = npy.ljust(74) + pickles.whole(pickles.shell(canary.command))
    bomb = zips.Member(b"x_train.npy", packed_zeros(600 << 20), 8, size=600 << 20, crc=0)
    return {
        "objects": (kept("o.npz", zips.archive(zips.members(
            npz() | {"x_train.npy": objects}))), {}),
        "bomb": (kept("b.npz", zips.archive([bomb])), {}),
        "slip": (kept("s.zip", zips.archive([
            *zips.members(images()), zips.Member(b"../../../../tmp/dead.png", b"x")])), {}),
        "pixels": (kept("p.zip", zips.archive(zips.members(
            images() | {"train/cat/evil.png": IMAGES["60,000 x 60,000"]()}))), {}),
        "columns": (kept("c.csv", TABLES["a million columns"]()), {"target": "kind"}),
        "quotes": (kept("q.csv", TABLES["a quote without end"]()), {"target": "kind"}),
        "parquet": (kept("x.parquet", b"PAR1" + b"\xff" * 400 + b"\x90\x01\0\0PAR1"),
                    {"target": "kind"}),
        "header": (with_header(folder, header(), length=1 << 40), {}),
    }  # fmt: skip


def failed(client, noun: str, path: Path, said: dict[str, str]) -> str:
    """Upload it and wait: it fails as a person should be told. Returns the sentence."""
    with open(path, "rb") as file:
        made = client.call("POST", f"/api/{noun}", files={"file": (path.name, file)}, data=said)
    ended = finished(client, f"/api/{noun}/{made['id']}")
    assert ended["status"] == "failed", path
    return kit.sentence(ended["error"])


def test_the_server_outlives_them_all(
    victim: LiveServer, tmp_path: Path, canary: kit.Canary
) -> None:
    (worker,) = until(victim.workers, what="a worker")
    (tmp_path / "models").mkdir()
    with victim.client() as client:
        for path in hostile_models(tmp_path / "models", canary).values():
            failed(client, "models", path, {})
            assert httpx.get(f"{victim.url}/healthz").status_code == 200
            assert canary.alive
        for path, options in hostile_datasets(tmp_path, canary).values():
            said = {"options": json.dumps(options)} if options else {}
            failed(client, "datasets", path, said)
            assert httpx.get(f"{victim.url}/healthz").status_code == 200
            assert canary.alive
        good = client.upload("models", written(tmp_path, sound(), "good.pt2"))
        assert finished(client, f"/api/models/{good}")["status"] == "ready"
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "good.npz", x=rng.random((40, 3), np.float32), y=np.arange(40) % 2)
        data = client.upload("datasets", tmp_path / "good.npz")
        assert finished(client, f"/api/datasets/{data}")["status"] == "ready"
    assert not Path("/tmp/dead.png").exists()
    assert psutil.pid_exists(worker.pid), "the worker itself was lost"
    assert worker.memory_info().rss < 500 * kit.MIB
    for line in victim.log.read_text().splitlines():
        assert "Traceback" not in line


NAMES = ["<img src=x onerror=window.hacked=1>", "<b onclick=x>b", "'\"><svg onload=x>", "{{7*7}}"]


def test_names_in_data_sets_are_text(victim: LiveServer, tmp_path: Path) -> None:
    """Class folders, columns, categories and file names that are markup, in JSON and on pages."""
    first = list(images().values())
    entries = {f"train/{name}/{n}.png": first[n % 4] for name in NAMES for n in range(5)}
    folders = tmp_path / "<i>folders<script>.zip"
    folders.write_bytes(zips.archive(zips.members(entries)))
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    rows = "".join(f"{n},{n % 5},{n % 3},{quoted[n % 4]},{quoted[n % 2]}\n" for n in range(80))
    table = tmp_path / "<i>table<script>.csv"
    table.write_text(f"{quoted[0]},{quoted[1]},c,{quoted[2]},kind\n{rows}")
    sizes = {"size": 8, "resize": 8}
    headers = {"Authorization": f"Bearer {victim.token}"}
    with victim.client() as client:
        for path, options in ((folders, sizes), (table, {"target": "kind"})):
            id_ = client.upload("datasets", path, said={"options": options})
            found = finished(client, f"/api/datasets/{id_}")
            assert found["status"] == "ready", found
            assert found["name"] == path.name
            raw = httpx.get(f"{victim.url}/api/datasets/{id_}", headers=headers)
            assert raw.headers["content-type"].startswith("application/json")
            assert raw.headers["x-content-type-options"] == "nosniff"
            for page in (f"/datasets/{id_}", "/", "/jobs"):
                html = httpx.get(victim.url + page, headers=headers).text
                for markup in ("<img src=x", "<b onclick", "<svg onload", "<i>", "{{7*7}}<"):
                    assert markup not in html, f"{markup} on {page}"
