"""Model cards: reading them, finding and trusting the files they name."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InvalidInput
from stages.models.cards import ModelCard, card_named, find_weights, read_cards, read_weights

LEAST = "a:\n  kind: quality\n  architecture: onnx\n  file: x\n  dimension: 1\n  licence: MIT\n"
CARD = ModelCard(
    name="m", kind="quality", architecture="onnx", file="m.onnx", dimension=1, licence="MIT"
)


def test_shipped_cards_are_valid_and_name_their_models(cards_file: Path) -> None:
    cards = read_cards(cards_file)
    assert {
        "edgeface_xxs",
        "mobilefacenet",
        "lightqnet",
        "yunet_320",
        "crfiqa_s",
        "crfiqa_l",
    } <= set(cards)
    assert all(card.name == name for name, card in cards.items())
    assert cards["crfiqa_s"].embedding_dimension == 512
    assert cards["crfiqa_s"].has_quality
    assert cards["lightqnet"].embedding_dimension is None


def test_shipped_digests_are_those_of_the_files(cards_file: Path, weights: Path) -> None:
    found = 0
    for card in read_cards(cards_file).values():
        if (weights / card.file).is_file() and card.sha256:
            read_weights(weights / card.file, card.sha256)
            assert card.bytes == (weights / card.file).stat().st_size
            found += 1
    assert found == 6


def test_unknown_name_suggests_the_nearest(cards_file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'edgefase_xxs'.*edgeface_xxs"):
        card_named(read_cards(cards_file), "edgefase_xxs")


def test_every_bad_field_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "a: {kind: face, architecture: onnx, file: ../x, dimension: 1, licence: MIT, colr:"
        " rgb}\nb: 3\n"
    )
    with pytest.raises(InvalidInput) as caught:
        read_cards(path)
    assert all(
        part in str(caught.value)
        for part in ("a.kind", "a.file", "a.colr", "b: expected a mapping")
    )


@pytest.mark.parametrize("field", ["dimension", "input_size", "bytes", "mean", "std"])
def test_true_is_no_number(tmp_path: Path, field: str) -> None:
    value = "[true, true, true]" if field in ("mean", "std") else "true"
    path = tmp_path / "models.yaml"
    path.write_text(f"a: {{kind: quality, architecture: onnx, file: x.onnx, {field}: {value}}}\n")
    with pytest.raises(InvalidInput, match=rf"a\.{field}: expected a number, which true"):
        read_cards(path)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", ""])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=r"models\.yaml"):
        read_cards(tmp_path / "models.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: &a {kind: quality}\nb: *a\n", "aliases"),
        ("a: {file: x, file: y}\n", "key 'file' given twice"),
        ("\n" * 1_000_001, "a file of model cards is a page of text"),
        (LEAST + "  color: bgr\n", "a.color: unknown key 'color': did you mean 'colour'"),
        (LEAST + "  mean: [1, 2]\n", "a.mean: expected more values"),
        (LEAST + "  mean: [0, .nan, 0]\n", "a.mean.1: expected a finite number"),
        (LEAST + "  std: [1, 1, .inf]\n", "a.std.2: expected a finite number"),
        (LEAST + "  std: [1, 1, 1.0e-300]\n", "a.std.2: expected 1e-06 or more"),
        (LEAST + "  input_size: 1000000\n", "a.input_size: expected 4096 or less"),
        (
            LEAST.replace("dimension: 1", "dimension: 100000000"),
            "a.dimension: expected 65536 or less",
        ),
        (LEAST + f"  bytes: 0x{'f' * 5000}\n", "a whole number of more than 64 bits"),
        (LEAST.replace("file: x", "file: .."), "a.file: .*must be a bare file name"),
    ],
    ids=[
        "alias",
        "twice",
        "large",
        "misspelt",
        "short",
        "nan",
        "inf",
        "std",
        "size",
        "dimension",
        "number",
        "up",
    ],
)
def test_a_users_cards_are_read_as_carefully_as_a_config(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=sentence):
        read_cards(tmp_path / "models.yaml")


def test_what_was_found_is_shown_in_short(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        f"a: {'x' * 1000}\n{'b' * 200}: 3\n" + LEAST.replace("a:", "c:") + f"  {'y' * 500}: 1\n"
    )
    with pytest.raises(InvalidInput) as caught:
        read_cards(tmp_path / "models.yaml")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 600


def test_weights_come_from_the_first_folder_that_has_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "m.onnx").touch()
    assert find_weights(CARD, [tmp_path / "a", tmp_path / "b"]) == tmp_path / "b" / "m.onnx"


def test_missing_weights_say_what_was_looked_for_and_the_licence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"m\.onnx.*MIT") as caught:
        find_weights(CARD, [tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_a_file_name_too_long_to_exist_is_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs the file xxx"):
        find_weights(CARD.model_copy(update={"file": "x" * 300}), [tmp_path])


def test_wrong_digest_names_both_and_the_path(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"other")
    assert read_weights(path, hashlib.sha256(b"other").hexdigest()).data == b"other"
    with pytest.raises(InvalidInput, match=r"expected sha256 000.*found d9298a10d1b0") as caught:
        read_weights(path, "0" * 64)
    assert str(path) in str(caught.value)


def test_cards_import_no_inference_library() -> None:
    code = (
        "import sys, stages.models.cards; print({'torch', 'onnxruntime', 'cv2'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
