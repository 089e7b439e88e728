"""Inputs chosen by coverage: atheris, where it is installed, on four readers whose input is bytes.

    python -m tests.hostile.guided TARGET FOLDER [LIBFUZZER OPTION ...]      TARGET: config, zip,
                                                                             image, receipt

Ends with an error at the first input out of which anything comes but an answer or a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(
    include=[
        *("pipeline", "stages.faces.images", "stages.faces.jpeg"),
        *("yaml", "zipfile", "PIL", "json"),
    ]
):
    from pipeline.config.config import load_config
    from pipeline.errors import InvalidInput, QfuseError
    from pipeline.files.file_tree import Zip
    from pipeline.store.store import Store
    from stages.faces.images import Unusable, decode

from . import archives, documents, pictures, tables


def _config(path: Path) -> None:
    load_config(path)


def _zip(path: Path) -> None:
    files = Zip(path)
    for name in files.names()[:5]:
        with suppress(InvalidInput):
            files.read(name)


def _image(path: Path) -> None:
    with suppress(Unusable):
        decode(path.read_bytes(), pictures.MAX_PIXELS)


def _receipt(path: Path) -> None:
    Store(path.parents[2], readonly=True).receipt("toy", tables.KEY)


TARGETS: dict[str, tuple[Callable[[Path], None], Callable[[Random, Path], object], str]] = {
    "config": (_config, documents.config, "c.yaml"),
    "zip": (_zip, archives.zips, "set.zip"),
    "image": (_image, pictures.images, "0.jpg"),
    "receipt": (_receipt, tables.store, f"store/toy/{tables.KEY[:2]}/{tables.KEY}.json"),
}


def main(target: str, folder: Path, options: list[str]) -> None:
    use, make, name = TARGETS[target]
    corpus, path = folder / "corpus", folder / "given" / name
    corpus.mkdir()
    for seed in range(60):  # what the generators make is where coverage starts
        given = folder / str(seed) / "given"
        (given.parent / "beside").mkdir(parents=True)
        given.mkdir()
        make(Random(seed), given)  # noqa: S311  a seeded experiment
        (corpus / str(seed)).write_bytes((given / name).read_bytes())
    path.parent.mkdir(parents=True)
    if target == "receipt":
        (folder / "given/store/format.json").write_bytes(tables.stored()[2])

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            use(path)
        except QfuseError as refusal:
            if not str(refusal):
                raise ValueError("a refusal without a sentence") from refusal

    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
