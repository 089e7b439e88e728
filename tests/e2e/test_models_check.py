"""The verb `models check`, on real photographs and models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.conftest import Answer
from PIL import Image

from pipeline.errors import InvalidInput
from stages.commands.check_model import _refuse
from stages.faces.feeding import Way
from stages.models.cards import ModelCard

Qfuse = Callable[..., Answer]
SPOILT = {"edgeface_xxs": {"colour": "bgr"}, "lightqnet": {"colour": "rgb"}}


@pytest.fixture
def check(qfuse: Qfuse, shared: Path) -> Callable[..., Answer]:
    def call(name: str, *words: object, **options: Any) -> Answer:
        on = ("--on", shared / "data/lfw.zip") if "--on" not in words else ()
        options = {"env": {"QFUSE_SHARED": str(shared)}, **options}
        return qfuse("models", "check", name, *on, "--people", 60, *words, **options)

    return call


@pytest.fixture
def spoilt(tmp_path: Path, shared: Path) -> Path:
    """A folder of the shared weights, with cards that are wrong in their colours."""
    folder = tmp_path / "weights"
    folder.mkdir()
    cards = yaml.safe_load(Path("data_manifests/models.yaml").read_text(encoding="utf-8"))
    for name in (*SPOILT, "yunet_320"):
        (folder / cards[name]["file"]).symlink_to(shared / "models" / cards[name]["file"])
    own = {name: {**cards[name], **change} for name, change in SPOILT.items()}
    (folder / "cards.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", SPOILT)
def test_a_model_that_is_fed_right(check: Callable[..., Answer], name: str) -> None:
    answer = check(name, "--json")
    assert answer.code == 0, answer.err
    assert all(answer.json["contract"].values())
    assert not any(way["clearly_better"] for way in answer.json["ways"])


@pytest.mark.parametrize("name", SPOILT)
def test_a_card_with_the_wrong_colours_is_refused(
    check: Callable[..., Answer], spoilt: Path, name: str
) -> None:
    answer = check(name, "--folder", spoilt)
    assert answer.code == 3
    right = "RGB" if SPOILT[name]["colour"] == "bgr" else "BGR"
    assert f"{right} −1…1 is clearly better" in answer.err
    assert f"{right} −1…1" in answer.out


def test_a_detector_is_checked_by_the_faces_that_it_finds(check: Callable[..., Answer]) -> None:
    answer = check("yunet_320")
    assert answer.code == 0
    assert "finds a face in both photographs of 60 of 60 people" in answer.out


def test_without_photographs_only_the_contract_is_checked(qfuse: Qfuse, shared: Path) -> None:
    answer = qfuse("models", "check", "edgeface_xxs", env={"QFUSE_SHARED": str(shared)})
    assert answer.code == 0
    assert "not tested: colours and scale" in answer.out


def test_too_few_people_are_a_sentence(check: Callable[..., Answer], tmp_path: Path) -> None:
    for person in ("a", "b"):
        (tmp_path / "few" / person).mkdir(parents=True)
        for i in (0, 1):
            Image.new("RGB", (64, 64)).save(tmp_path / "few" / person / f"{i}.png")
    answer = check("edgeface_xxs", "--on", tmp_path / "few")
    assert answer.code == 3
    assert "2 folders with two photographs or more" in answer.err


def test_without_a_detector_the_way_to_one_is_told(
    check: Callable[..., Answer], spoilt: Path
) -> None:
    (spoilt / "yunet_n_320_320.onnx").unlink()
    answer = check("edgeface_xxs", "--folder", spoilt, env={"QFUSE_SHARED": ""})
    assert answer.code == 3
    assert "qfuse models fetch yunet_2023" in answer.err


def test_the_config_says_where_to_look(qfuse: Qfuse, spoilt: Path, tmp_path: Path) -> None:
    config = {
        "name": "x",
        "dataset": {"reader": "synthetic"},
        "models": {"folders": [str(spoilt)]},
        "steps": {"align": {}},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    listed = qfuse("models", "list", "--config", "x.yaml", "--json").json
    found = {row["name"]: row for row in listed}["edgeface_xxs"]
    assert (found["state"], found["colour"]) == ("yes", "bgr")
    both = qfuse("models", "list", "--config", "x.yaml", "--folder", spoilt)
    assert both.code == 2
    assert "give one of them" in both.err


def test_scores_whose_sign_is_turned_round_are_refused(
    check: Callable[..., Answer], spoilt: Path
) -> None:
    cards = yaml.safe_load((spoilt / "cards.yaml").read_text(encoding="utf-8"))
    cards["lightqnet"] |= {"colour": "bgr", "higher_is_better": False}
    (spoilt / "cards.yaml").write_text(yaml.safe_dump(cards), encoding="utf-8")
    answer = check("lightqnet", "--folder", spoilt)
    assert answer.code == 3
    assert "turn higher_is_better round" in answer.err


def test_a_model_that_parts_nothing_is_refused() -> None:
    way = Way("recognition", "rgb", "−1…1", 0.8, (0.0, 0.0), True, False)
    given = {"kind": "recognition", "architecture": "iresnet50", "file": "x", "dimension": 512}
    card = ModelCard.model_validate({"name": "x", "licence": "", **given})
    with pytest.raises(InvalidInput, match="parts next to nothing"):
        _refuse(card, {}, [way])
    _refuse(card, {}, [replace(way, separation=4.0)])
