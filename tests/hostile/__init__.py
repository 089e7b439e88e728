"""Hostile input: files made to break what reads them, the same for the same seed, and what must
hold for each of them.

Every kind is one function `case(rng, folder) -> call`: it writes an input below an empty folder and
returns the call that meets it first in a run. All chance comes from `rng`, so a seed names an
input; under hypothesis, `rng` is a `random.Random` whose draws hypothesis shrinks.
"""
