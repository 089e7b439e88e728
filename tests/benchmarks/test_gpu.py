"""`make gpu` tells what differs, and times it rightly; here the processor is the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_lines, gpu_networks, gpu_search
from benchmarks.gpu_lines import FAILED, FULL, OK, QUICK, SKIPPED, TYPES, UNEQUAL, Line
from benchmarks.random_networks import operations
from stages.matching import candidates
from stages.models.backends import ModelOutput, open_model

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(QUICK, images=3, timed=4, gallery=2000, probes=20, dimension=32, repeats=1)
PEAK = dict.fromkeys(TYPES, 1e12)


def networks() -> list[Line]:
    return list(gpu_networks.network_lines("mobilefacenet", "cpu", TINY, PEAK))


def searches() -> list[Line]:
    return list(gpu_search.search_lines("cpu", TINY, PEAK))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_cuda_device_it_says_so_in_a_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main([], tmp_path / "gpu.md") == 6
    told = capsys.readouterr()
    assert told.err.startswith("make gpu needs a CUDA device and none is usable: ")
    assert told.err.count("\n") == 1
    assert not told.out
    assert not list(tmp_path.iterdir())


def test_every_path_agrees_with_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "QUICK", TINY)
    assert gpu.main(["--quick", "--device", "cpu"], tmp_path / "gpu.md") == 0
    page = capsys.readouterr().out
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    verdicts = {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows}
    assert list(verdicts) == [
        "mobilefacenet, `cuda-fp32`",
        "mobilefacenet, `cuda-fp16`",
        "mobilefacenet, `cuda-fp16` with `precision: bf16`",
        "ONNX graph, `cuda-fp32`",
        "search by torch, 2,000 × 32",
        "search by faiss, 2,000 × 32",
        "exact product in float64, which stages leave to the processor",
    ]
    assert list(verdicts.values()) == [OK, SKIPPED, *[OK] * 5]
    assert "no path differs or failed" in page
    assert not list(tmp_path.iterdir())


def test_the_page_is_written_and_the_command_ends_with_1_if_a_path_differs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_search, "cosines_on", lambda a, b: a @ b.T + 2.0**-52)
    text, good = gpu.measure("cpu", replace(TINY, networks=()))
    assert not good
    assert "Result: 1 of 4 paths differ or failed." in text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "measure", lambda device, sizes: (text, good))
    assert gpu.main([], tmp_path / "gpu.md") == 1
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8") == text


def planted(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let embeddings of models under a profile for cuda be changed."""

    def opened(card: Any, weights: Any, profile: Any) -> Any:
        model = open_model(card, weights, profile)

        def answer(crops: np.ndarray) -> ModelOutput:
            found = model(crops)
            assert found.embedding is not None
            return ModelOutput(change(found.embedding), found.quality)

        answer.card, answer._network = card, model._network  # type: ignore[attr-defined]
        return model if profile.name.startswith("cpu") else answer

    monkeypatch.setattr(gpu_networks, "open_model", opened)


def test_an_embedding_that_is_off_is_told_by_the_limit_of_its_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # by an angle of about 0.01, whose cosine is 0.99995
    planted(monkeypatch, lambda found: found + 0.01 * np.abs(found) * np.sign(np.roll(found, 1, 1)))
    assert [line.verdict for line in networks()] == [UNEQUAL, SKIPPED, OK]


def test_an_embedding_that_is_not_finite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda found: np.where(found > 0, found, np.float32(np.nan)))
    assert [line.verdict for line in networks()] == [UNEQUAL, SKIPPED, UNEQUAL]


def test_bits_that_depend_on_the_place_in_a_batch_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_bit(found: np.ndarray) -> np.ndarray:
        changed = found.copy()
        changed[0] = np.nextafter(changed[0], np.float32(9))
        return changed

    planted(monkeypatch, last_bit)
    lines = networks()
    assert [line.verdict for line in lines] == [UNEQUAL, SKIPPED, UNEQUAL]
    assert "OTHER bits in another order" in lines[0].agreement


@pytest.mark.parametrize(("off", "good"), [(5e-5, True), (5e-4, False)])
def test_a_quality_score_may_be_off_by_a_share_of_the_largest(off: float, good: bool) -> None:
    scores = np.float32([1, -10, 4])
    moved = scores + np.float32([10 * off, 0, 0])
    found = gpu_networks.agreement(ModelOutput(None, scores), ModelOutput(None, moved), "fp32")
    assert found[0] is good


def test_a_path_that_raises_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(card: Any, weights: Any, profile: Any) -> Any:
        if profile.name == "cuda-fp32":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return open_model(card, weights, profile)

    monkeypatch.setattr(gpu_networks, "open_model", opened)
    first, _, last = networks()
    assert (first.verdict, last.verdict) == (FAILED, OK)
    assert first.agreement == "memory ran out, OutOfMemoryError: CUDA out of memory."
    assert not first.good


def test_what_cannot_be_prepared_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(sizes: Any, device: str) -> int:
        raise MemoryError

    monkeypatch.setattr(gpu_search, "gallery_that_fits", nothing)
    lines = list(gpu.all_lines("cpu", replace(TINY, networks=()), PEAK))
    assert [line.verdict for line in lines] == [OK, FAILED, OK]


@pytest.mark.parametrize(
    ("backend", "verdicts"), [("torch", [UNEQUAL, OK]), ("faiss", [OK, UNEQUAL])]
)
def test_a_search_that_selects_others_is_told(
    monkeypatch: pytest.MonkeyPatch, backend: str, verdicts: list[str]
) -> None:
    name = f"with_{backend}"
    make = getattr(candidates, name)

    def wrong(gallery: np.ndarray, threads: int, *device: str | None) -> Any:
        # the truth is found without a device
        return make(-gallery if device else gallery, threads, *device)

    monkeypatch.setattr(candidates, name, wrong)
    assert [line.verdict for line in searches()] == verdicts


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="this FAISS has a GPU")
def test_a_faiss_without_a_gpu_is_skipped_and_not_run_on_the_processor() -> None:
    place, missing = gpu_search._place("faiss", "cuda")
    assert place is None
    assert "needs faiss-gpu in place of faiss-cpu" in missing


def test_the_last_place_of_every_second_list_is_a_tie() -> None:
    gallery, probes = gpu_search.templates(TINY, TINY.gallery)
    score = np.sort(probes @ gallery.T, axis=1)[:, ::-1]
    top = gpu_search.TOP
    assert (np.abs(score[::2, top - 1] - score[::2, top]) < 1e-6).all()


def test_a_gallery_is_no_larger_than_the_memory_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = 4 * FULL.dimension
    monkeypatch.setattr(gpu_search, "available_memory", lambda: 128 << 30)
    for free, rows in ((130 << 30, FULL.gallery), (7 << 30, (1 << 30) // (2 * row)), (0, 800)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, free))
        assert gpu_search.gallery_that_fits(FULL, "cuda") == rows
    monkeypatch.setattr(gpu_search, "available_memory", lambda: 1 << 30)
    assert gpu_search.gallery_that_fits(FULL, "cpu") == (1 << 30) // (8 * row)


def test_a_time_begins_and_ends_when_the_device_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("idle"))
    monkeypatch.setattr(gpu_lines.time, "perf_counter", lambda: seen.append("clock") or 0.0)
    gpu_lines.seconds(lambda: seen.append("work"), "cuda", 2)
    assert seen == ["work", *["idle", "clock", "work", "idle", "clock"] * 2]


@pytest.mark.parametrize(("name", "expected"), [("iresnet50", 12.6), ("iresnet100", 24.2)])
def test_operations_are_those_that_the_page_names(name: str, expected: float) -> None:
    assert round(operations(name) / 1e9, 1) == expected


def test_the_readme_says_that_nothing_was_run_on_a_gpu_until_it_was() -> None:
    said = "not yet run on a GPU" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert said is not (ROOT / "docs" / "gpu.md").exists()
