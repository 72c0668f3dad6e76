"""Unpacking an upload that can't be memory-mapped as it is, once, when it is imported."""

from __future__ import annotations

from pathlib import Path

from app.domain.errors import InvalidFile
from worker.engine.formats import dataset_checks as checks
from worker.engine.formats.dataset_options import ImageOptions, Options, TableOptions
from worker.engine.formats.npz import NpzFile
from worker.engine.formats.prepared import PREPARABLE, Planned, Said, little, writing
from worker.engine.formats.safetensors_arrays import SafetensorsArrays
from worker.engine.formats.sources import Source, kind_of


def open_mapped(path: Path, form: str, task: str) -> Source | None:
    """The upload itself, if its arrays can be mapped where they lie; else None.

    Raises InvalidFile for a file whose arrays don't make a data set.
    """
    if form == "safetensors":
        return SafetensorsArrays(path)
    if form != "npz":
        return None
    npz = NpzFile(path)
    try:
        contents = checks.find_arrays(npz, task)
        checks.check_headers(npz, contents, task)
        if all(npz.is_mappable(name) for name in _numeric(npz, contents)):
            return npz
    except BaseException:
        npz.close()
        raise
    npz.close()
    return None


def prepare(path: Path, form: str, task: str, options: Options, target: Path, seed: int) -> None:
    """Writes the prepared file `target`. Raises InvalidFile, StorageFull."""
    if form == "npz":
        _prepare_npz(path, task, target)
    elif isinstance(options, ImageOptions):
        from worker.engine.formats.image_folders import prepare_images

        prepare_images(path, options, target)
    elif isinstance(options, TableOptions):
        from worker.engine.formats.tables import prepare_table

        prepare_table(path, form, task, options, target, seed)
    else:
        raise ValueError(f"{form} has nothing to prepare")


def _prepare_npz(path: Path, task: str, target: Path) -> None:
    with NpzFile(path) as npz:
        contents = checks.find_arrays(npz, task)
        checks.check_headers(npz, contents, task)
        names = _numeric(npz, contents)
        words = {n: npz.word(n) for n in contents.options.values()}
        plan: dict[str, Planned] = {}
        for name in names:
            header = npz.header(name)
            if little(header.dtype) not in PREPARABLE:
                kind = kind_of(header.dtype)
                raise InvalidFile(f"{name} holds {kind}.", "It must hold numbers.")
            plan[name] = Planned(header.shape, header.dtype)
        said = Said(
            "npz", notes=contents.notes, layouts={n: w for n, w in words.items() if w is not None}
        )
        with writing(target, plan, said) as out:
            for name in names:
                for rows in npz.rows(name, target.parent):
                    out.append(name, rows)


def _numeric(npz: NpzFile, contents: checks.Contents) -> list[str]:
    """The arrays that are used and are no words."""
    used = [n for names in contents.x.values() for n in names]
    used += [*contents.y.values(), *contents.options.values()]
    return [name for name in used if npz.word(name) is None]
