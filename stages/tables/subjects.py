"""Subjects of unnamed templates: those connected by mated comparisons are one subject."""

from __future__ import annotations

import numpy as np

from pipeline.core.schema import Array, text


def inferred_subjects(known: Array, subject: Array, a: Array, b: Array) -> Array:
    """Return every template's subject (text): the listed one, else one inferred from mated pairs.

    `subject` is None for a template that no list names; a, b are the template rows of mated
    comparisons.

    >>> known, listed = np.array([10, 11, 12]), np.array([None, None, None])
    >>> inferred_subjects(known, listed, np.array([0]), np.array([2]))
    array(['s10', '', 's10'], dtype=object)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(known)
    # Subjects are the connected components of the graph of mated comparisons. A component is named
    # after its smallest known template, unless a list names one of its templates.
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(size, size))
    count, group = connected_components(graph, directed=False)
    smallest = np.full(count, size)
    np.minimum.at(smallest, group, np.arange(size))
    name = text(f"s{known[row]}" for row in smallest.tolist())
    is_mated = np.zeros(size, bool)
    is_mated[a] = is_mated[b] = True
    name[np.bincount(group[is_mated], minlength=count) == 0] = ""
    given = np.array([value is not None for value in subject], bool)
    groups, first = np.unique(group[given], return_index=True)
    name[groups] = subject[given][first]
    return np.where(given, subject, name[group])
