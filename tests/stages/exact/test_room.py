"""Nothing outside stages/exact multiplies, sums or orders embeddings by calls whose last bits a
machine decides.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

STAGES = Path(__file__).resolve().parents[3] / "stages"
PRODUCTS = {
    "einsum",
    "dot",
    "vdot",
    "inner",
    "matmul",
    "tensordot",
    "multi_dot",
    "norm",
    "mm",
    "bmm",
}
FUNCTIONS = {
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log1p",
    "xlogy",
    "xlog1py",
    "power",
    "float_power",
}
FUNCTIONS |= {
    "sin",
    "cos",
    "tan",
    "arcsin",
    "arccos",
    "arctan",
    "arctan2",
    "sinh",
    "cosh",
    "tanh",
    "erf",
}
LIBRARIES = {"np", "math", "special", "linalg", "torch"}
# Where such calls are, and why they decide no result that is stored below embeddings.
ALLOWED = {
    "exact": "the room itself",
    "detectors/yunet.py": "chooses among faces found, before there are embeddings",
    "faces/feeding.py": "compares ways of feeding a model, of which nothing is stored",
    "datasets/synthetic.py": "draws embeddings, of which everything after is made",
    "metrics/weighted.py": "products of whole numbers far below 2⁵³, which are exact",
    "matching/candidates.py": "selects candidates, which are scored exactly",
}


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every call that is not the same everywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            yield node.lineno, "@"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if owner in LIBRARIES and node.attr in PRODUCTS | FUNCTIONS:
                yield node.lineno, f"{owner}.{node.attr}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "argsort"
        ):
            chosen = {
                k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            if chosen.get("kind") != "stable":
                yield node.lineno, "argsort that is not stable"


def allowed(path: Path) -> bool:
    inside = path.relative_to(STAGES).as_posix()
    return any(inside == place or inside.startswith(f"{place}/") for place in ALLOWED)


def test_no_other_room_multiplies_or_orders_by_what_a_machine_decides() -> None:
    found = [
        f"{path.relative_to(STAGES)}:{line}: {what}"
        for path in sorted(STAGES.rglob("*.py"))
        if not allowed(path)
        for line, what in calls(path.read_text(encoding="utf-8"))
    ]
    assert not found, "use stages/exact instead:\n" + "\n".join(found)


@pytest.mark.parametrize("place", ALLOWED)
def test_every_exception_is_still_one(place: str) -> None:
    files = [STAGES / place] if place.endswith(".py") else sorted((STAGES / place).rglob("*.py"))
    assert any(list(calls(path.read_text(encoding="utf-8"))) for path in files)


FORBIDDEN = [
    "a @ b",
    "a @= b",
    "np.einsum('i,i', a, b)",
    "np.linalg.norm(a)",
    "np.exp(a)",
    "math.log(a)",
]


@pytest.mark.parametrize("line", [*FORBIDDEN, "np.argsort(a)", "a.argsort()"])
def test_the_search_finds(line: str) -> None:
    assert list(calls(line))
    assert not list(
        calls("np.argsort(a, kind='stable'); functions.exp(a); sums.dot(a, b); np.sqrt(a)")
    )
