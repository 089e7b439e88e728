"""An account of a data set's files: which are used, which are passed over, what is doubtful."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput, counted
from pipeline.files.digests import UNREADABLE
from pipeline.files.file_tree import Files

# What systems, and stores of photographs, keep for themselves beside what is the user's; in lower
# case.
SYSTEM = {
    *(
        "__macosx",
        "network trash folder",
        "temporary items",
        "lost+found",
        "system volume information",
    ),
    *("$recycle.bin", "recycler", "recycled", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("found.000", "wpsystem", "_gsdata_"),
    *("@eadir", "@tmp", "@synoresource", "#recycle", "@recycle", "#snapshot", "@recently-snapshot"),
}
BEGINNINGS = (".", "synofile_thumb_")
SHOWN_SUBJECTS = 5  # subjects that are named
MOSTLY_DEEPER = 0.8  # share of the images: above it, the root may be one level too high
_HIDDEN = "hidden, or a system's own"


def hidden(name: str) -> bool:
    """Whether a relative name is hidden, or a system's own, or lies in a folder that is."""
    return any(
        part.startswith(BEGINNINGS) or part in SYSTEM for part in PurePosixPath(name.lower()).parts
    )


def suffix(name: str) -> str:
    """Return the suffix of a relative name in lower case, without its dot."""
    return PurePosixPath(name).suffix.lower().lstrip(".")


def passed_over(
    files: Files,
    used: Iterable[str],
    extensions: Collection[str],
    otherwise: str | Callable[[str], str],
    root: str = "",
) -> dict[str, str]:
    """Return why each file below the data set's path is not `used`: relative name → reason.

    `otherwise` is the reason for an image below `root`, or gives it. `root` is "" or a folder with
    a slash at its end.
    """
    taken = set(used)
    passed = {
        name: _why(name, root, extensions, otherwise) for name in files.names() if name not in taken
    }
    return passed | {
        name: _HIDDEN if hidden(name) else why for name, why in sorted(files.passed_over.items())
    }


def account(files: Files, faces: Batch, passed: Mapping[str, str]) -> list[str]:
    """Say what is passed over, which faces cannot be read, and which subjects may be one."""
    return [
        *_passed_over_sentences(len(set(files.names()) - passed.keys()), passed),
        *_unreadable_images(files, faces),
        *_subjects_alike(faces),
    ]


def folders_of_no_subject(
    files: Files, passed: Mapping[str, str], subjects: Collection[str], root: str, advice: str
) -> Iterator[str]:
    """Name the folders below `root` that belong to no subject.

    `advice` is for folders whose files have another form.
    """
    why: dict[str, dict[str, None]] = {}
    for name, reason in passed.items():
        subject, below, _ = name.removeprefix(root).partition("/")
        if (
            name.startswith(root)
            and (below or name in files.passed_over)
            and subject not in subjects
            and not hidden(subject)
        ):
            why.setdefault(subject, {})[reason] = None
    if why:
        more = f" and {len(why) - SHOWN_SUBJECTS:,} more" if len(why) > SHOWN_SUBJECTS else ""
        named = ", ".join(
            f"{printable(subject)} ({', '.join(reasons)})"
            for subject, reasons in [*why.items()][:SHOWN_SUBJECTS]
        )
        forms = any(
            each.startswith(("of suffix", "without"))
            for reasons in why.values()
            for each in reasons
        )
        yield f"Nothing is used of {named}{more}.{f' {advice}' if forms else ''}"


def misplaced_folders(used: Collection[str], root: str, nested: bool) -> Iterator[str]:
    """Tell of a single subject, and of subjects whose images nearly all lie in one sub-folder.

    `nested`: folders below a subject's are meant to be there.
    """
    below = [path.removeprefix(root).split("/") for path in used]
    names = {parts[0] for parts in below}
    inner = {tuple(parts[:2]) for parts in below if len(parts) > 2}
    deep, tops = sum(len(parts) > 2 for parts in below), {top for top, _ in inner}
    option = f"set dataset.options.root to {root}{min(tops)}" if tops else ""
    if len(names) == 1:
        advice = f"; if the folders in it are the subjects, {option}" if inner else ""
        yield f"All images are of one subject, {min(names)}{advice}."
    elif not nested and len(inner) > len(names) > 1 and deep >= MOSTLY_DEEPER * len(below):
        lie = "Every image lies in a folder below its subject's" if deep == len(below) else ""
        lie = lie or f"{deep:,} of {len(below):,} images lie in a folder below their subject's"
        if len(tops) == 1:
            what = option
        else:
            what = "dataset.path or dataset.options.root is one level too high"
        yield (
            f"{lie} (as in {'/'.join(min(inner))}, of the subject {min(inner)[0]}); if those are"
            f" the subjects, {what}."
        )


def repeated_photographs(faces: Batch) -> Iterator[str]:
    """Tell of identical photographs under several subjects, or several times under one."""
    count = Counter(faces["sha256"].tolist())
    twice = {
        digest: list[tuple[str, str]]()
        for digest, times in count.items()
        if times > 1 and digest not in ("", UNREADABLE)
    }
    if not twice:
        return
    for path, subject, digest in zip(
        *(faces[column].tolist() for column in ("path", "subject", "sha256")), strict=True
    ):
        if digest in twice:
            twice[digest].append((path, subject))
    across, within = list[list[str]](), list[list[str]]()
    for each in twice.values():
        paths, subjects = [path for path, _ in each], Counter(subject for _, subject in each)
        across += [paths] if len(subjects) > 1 else []
        within += [paths] if max(subjects.values()) > 1 else []
    effects = (
        (
            across,
            "under several subjects",
            "Their comparisons count as non-mated though they show one face: keep each once.",
        ),
        (within, "several times under one subject", "Each counts as often as it is there."),
    )
    for found, what, effect in effects:
        if found:
            one, other = found[0][:2]
            yield (
                f"{counted(len(found), 'photograph')} {_be(found)} there {what} (as {one} and"
                f" {other}). {effect}"
            )


def printable(name: str) -> str:
    """Return a name that can be printed anywhere: other characters become their numbers."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _why(
    name: str, root: str, extensions: Collection[str], otherwise: str | Callable[[str], str]
) -> str:
    if hidden(name):
        return _HIDDEN
    if not name.startswith(root):
        return f"not below dataset.options.root ({root})"
    if (own := suffix(name)) not in extensions:
        return f"of suffix .{printable(own)}" if own else "without a suffix"
    return otherwise if isinstance(otherwise, str) else otherwise(name)


def _passed_over_sentences(used: int, passed: Mapping[str, str]) -> Iterator[str]:
    if passed:
        by_reason = defaultdict[str, list[str]](list)
        for name, why in passed.items():
            by_reason[why].append(name)
        counts = (
            f"{len(names):,} {why} (as {printable(names[0])})"
            for why, names in sorted(by_reason.items())
        )
        verbs = ["is" if number == 1 else "are" for number in (used, len(passed))]
        yield (
            f"{counted(used, 'file')} {verbs[0]} used, {len(passed):,} {verbs[1]} passed over:"
            f" {', '.join(counts)}."
        )


def _unreadable_images(files: Files, faces: Batch) -> Iterator[str]:
    """Tell how many of the images cannot be read, and why the first one cannot."""
    paths = [*dict.fromkeys(faces["path"][faces["sha256"] == UNREADABLE].tolist())]
    if paths:
        why = f"as {printable(paths[0])}"
        try:
            files.read(paths[0])
        except (InvalidInput, FileNotFoundError) as error:
            why = f"{why}: {str(error).rstrip('.')}" if isinstance(error, InvalidInput) else why
        yield (
            f"{counted(len(paths), 'image')} of those used cannot be read, so nothing comes of"
            f" {_them(paths)} ({why})."
        )


def _subjects_alike(faces: Batch) -> Iterator[str]:
    """Tell of subjects whose names differ only in case, or in how accents are encoded."""
    spellings = defaultdict[str, list[str]](list)
    for name in dict.fromkeys(faces["subject"].tolist()):
        spellings[normalize("NFC", normalize("NFC", name).casefold())].append(name)
    if several := [names for names in spellings.values() if len(names) > 1]:
        one, other = several[0][:2]
        # the names look the same, so their characters are printed as numbers
        same = normalize("NFC", one) == normalize("NFC", other)
        pair = " and ".join(ascii(each) if same else printable(each) for each in (one, other))
        yield (
            f"{sum(map(len, several)):,} subjects have names that differ from another's only in"
            f" upper and lower case, or in how accents are encoded (as {pair}). Each is a subject"
            " of its own: if they are one person, give them one name."
        )


def _be(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _them(found: Sequence[object]) -> str:
    return "it" if len(found) == 1 else "them"
