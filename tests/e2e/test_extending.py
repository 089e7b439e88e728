"""What docs/extending.md shows is run as it stands: its Python, its card and its config, on a few
photographs.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", (DOCS / "extending.md").read_text(encoding="utf-8"), re.DOTALL
    )


@pytest.fixture(scope="module")
def ran(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "qfuse_mine.py").write_text("\n".join(blocks("python")))
    card, config = blocks("yaml")
    (folder / "my_models.yaml").write_text(card)
    (folder / "mine.yaml").write_text(config)
    (folder / "models").mkdir()
    shutil.copyfile(shared / "models/edgeface_xs.onnx", folder / "models/my_model.onnx")
    shutil.copyfile(shared / "models/yunet_n_320_320.onnx", folder / "models/yunet_n_320_320.onnx")
    with zipfile.ZipFile(shared / "data/lfw.zip") as archive:
        names = [
            n
            for who in ("Al_Gore", "Ann_Veneman")
            for n in archive.namelist()
            if f"/{who}/" in n and n.endswith("3.jpg")
        ]
        for name in names:
            path = folder / "faces" / Path(name).name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(archive.read(name))
    people = [(Path(name).name, name.split("/")[1]) for name in names]
    lines = [
        "path,subject,template,media",
        *(f"{file},{person},{person},{file}" for file, person in people),
    ]
    (folder / "faces/faces.csv").write_text("\n".join(lines) + "\n")
    start = "import qfuse_mine\nfrom pipeline.cli.main import main\nmain()"
    words = [sys.executable, "-c", start, "run", "mine.yaml", "--json"]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_rule_a_stage_a_card_and_a_reader_of_ones_own_work_in_a_config(
    ran: tuple[Path, dict],
) -> None:
    assert {step.partition("[")[0] for step in ran[1]["ran"]} == {
        "align",
        "embed",
        "quality",
        "fuse",
    }
    assert sum(1 for _ in (ran[0] / ".qfuse/store/fuse").glob("??/*.h5")) == 2  # one a rule


def test_templates_of_ones_own_rule_are_read_with_plain_h5py(ran: tuple[Path, dict]) -> None:
    for path in (ran[0] / ".qfuse/store/fuse").glob("??/*.h5"):
        with h5py.File(path) as file:
            assert file["embedding"].shape == (2, 512)
            assert (file["embedding"][:] ** 2).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
