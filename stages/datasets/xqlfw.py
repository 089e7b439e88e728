"""Reader `xqlfw`: Cross-Quality LFW, LFW's protocol on pairs of a good image and a bad one.

Conventions
    Tree       as LFW's (`stages.datasets.lfw`): NAME/NAME_0001.jpg wherever in the folder or zip
               that lies, and the list xqlfw_pairs.txt, in the form of LFW's pairs.txt: 10 folds of
               300 mated and 300 non-mated pairs.
    Crops      the images of xqlfw_aligned_112 are aligned already: `align: {options: {detector:
               none}}`.
    Skewed     pairs were chosen with two quality methods, SER-FIQ and BRISQUE: as
               data_manifests/xqlfw.yaml says, a study of quality methods on it favours those that
               agree with these.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pipeline.core.registry import register
from pipeline.core.schema import Batch
from pipeline.files.file_tree import Files
from stages.datasets.folder import need_files
from stages.datasets.lfw import LfwOptions, LfwReader
from stages.datasets.manifests import need_whole
from stages.datasets.problems import Problems


class XqlfwOptions(LfwOptions):
    """As LFW's; `counts: published` also compares the list with the published counts."""

    pairs: str = "xqlfw_pairs.txt"


@register("reader", "xqlfw")
class XqlfwReader(LfwReader):
    """Every face a template of its own, and a list of comparisons in ten folds."""

    name: ClassVar[str] = "xqlfw"
    version: ClassVar[int] = 2
    Options: ClassVar[type[Any]] = XqlfwOptions
    options: XqlfwOptions

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput as LFW's reader does, and if the number of pairs is not the published
        one.
        """
        files = need_files(files, self.name)
        tables = super().read(files)
        if self.options.counts == "published":
            mated, problems = tables["comparisons"]["mated"], Problems(files.root)
            count = int(mated.sum())
            need_whole(
                self.name,
                {"pairs": len(mated), "mated": count, "non-mated": len(mated) - count},
                problems,
            )
            problems.refuse()
        return tables
