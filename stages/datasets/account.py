"""An account of a folder's files: which are used, which are passed over and why, and what is doubtful about the used ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from pipeline.errors import counted
from pipeline.files import Files
from pipeline.keys import UNREADABLE
from pipeline.schema import Batch

# Folders that systems, and stores of photographs, keep for themselves beside what is the user's.
SYSTEM = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SHOWN = 5  # subjects that are named


def hidden(name: str) -> bool:
    """Whether a relative name is hidden, or a system's own, or lies in a folder that is."""
    return any(part.startswith(".") or part in SYSTEM for part in PurePosixPath(name).parts)


def suffix(name: str) -> str:
    """Return the suffix of a relative name in lower case, without its dot."""
    return PurePosixPath(name).suffix.lower().lstrip(".")


def account(files: Files, root: str, extensions: Sequence[str], faces: Batch, nested: bool = False) -> list[str]:
    """Return sentences on a folder of subjects' folders, of which `faces` are used; none where there is nothing to tell.

    `root` is "" or the sub-folder that the subjects' folders lie in, with a slash at its end. `nested`: folders below a
    subject's are meant to be there.
    """
    used = set(faces["path"].tolist())
    passed: dict[str, list[str]] = defaultdict(list)
    subjects = {path.removeprefix(root).partition("/")[0] for path in used}
    lost: dict[str, dict[str, None]] = {}  # subject → why its files are passed over
    for name, why in [*((name, _why(name, root, extensions)) for name in files.names()), *files.passed_over.items()]:
        if name in used:
            continue
        passed[why].append(name)
        subject, below, _ = name.removeprefix(root).partition("/")
        if name.startswith(root) and not hidden(name) and (below or name in files.passed_over) and subject not in subjects:
            lost.setdefault(subject, {})[why] = None
    return [
        *_told(len(used), passed),
        *_lost(lost),
        *_deeper(subjects, used, root, nested),
        *_repeated(faces, root),
    ]


def _why(name: str, root: str, extensions: Sequence[str]) -> str:
    if hidden(name):
        return "hidden, or a system's own"
    if not name.startswith(root):
        return f"not below dataset.options.root ({root})"
    if suffix(name) not in extensions:
        return f"of suffix .{suffix(name)}" if suffix(name) else "without a suffix"
    return "in no subject's folder"


def _told(used: int, passed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if passed:
        counts = (f"{len(names):,} {why} (as {names[0]})" for why, names in sorted(passed.items()))
        over = sum(map(len, passed.values()))
        verbs = ("is" if number == 1 else "are" for number in (used, over))
        yield f"{counted(used, 'file')} {next(verbs)} used, {over:,} {next(verbs)} passed over: {', '.join(counts)}."


def _lost(lost: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Name the subjects of whom nothing is used, and say what to do where their files are of another form."""
    if lost:
        more = f" and {len(lost) - SHOWN:,} more" if len(lost) > SHOWN else ""
        named = ", ".join(f"{subject} ({', '.join(why)})" for subject, why in [*lost.items()][:SHOWN])
        forms = any(each.startswith(("of suffix", "without")) for why in lost.values() for each in why)
        advice = " Convert their files, or name their suffixes in dataset.options.extensions." if forms else ""
        yield f"Nothing is used of {named}{more}.{advice}"


def _deeper(subjects: Iterable[str], used: Iterable[str], root: str, nested: bool) -> Iterator[str]:
    """Tell of a single subject, and of subjects whose every image lies in a folder below theirs."""
    names = sorted(subjects)
    below = [path.removeprefix(root).split("/") for path in used]
    inner = {tuple(parts[:2]) for parts in below if len(parts) > 2}
    if len(names) == 1:
        advice = f"; if the folders in it are the subjects, set dataset.options.root to {root}{names[0]}" if inner else ""
        yield f"All images are of one subject, {names[0]}{advice}."
    elif not nested and len(inner) > len(names) > 1 and all(len(parts) > 2 for parts in below):
        first = "/".join(min(inner))
        yield (
            f"Every image lies in a folder below its subject's (as in {first}, of the subject {min(inner)[0]}); if those "
            "are the subjects, dataset.path or dataset.options.root is one level too high."
        )


def _repeated(faces: Batch, root: str) -> Iterator[str]:
    """Tell of photographs, the same byte for byte, that are there under several subjects, or several times under one."""
    count = Counter(faces["sha256"].tolist())
    twice = {digest: list[str]() for digest, times in count.items() if times > 1 and digest not in ("", UNREADABLE)}
    if not twice:
        return
    for path, digest in zip(faces["path"].tolist(), faces["sha256"].tolist(), strict=True):
        if digest in twice:
            twice[digest].append(path)
    across, within = list[list[str]](), list[list[str]]()
    for paths in twice.values():
        subjects = Counter(path.removeprefix(root).partition("/")[0] for path in paths)
        across += [paths] if len(subjects) > 1 else []
        within += [paths] if max(subjects.values()) > 1 else []
    effects = (
        (across, "under several subjects", "Their comparisons count as non-mated though they show one face: keep each once."),
        (within, "several times under one subject", "Each counts as often as it is there."),
    )
    for found, what, effect in effects:
        if found:
            verb = "is" if len(found) == 1 else "are"
            yield f"{counted(len(found), 'photograph')} {verb} there {what} (as {found[0][0]} and {found[0][1]}). {effect}"
