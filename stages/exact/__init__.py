"""The arithmetic of embeddings: all products and sums of them are computed here, and nowhere else.

What comes out is the same to the last bit on every x86-64 machine, whatever the BLAS, its kernel,
the number of threads, the order of the rows and the size of the blocks; elsewhere it agrees to
1e-7. There are three ways to it:

    exact sums       components of unit vectors are multiples of GRID = 2⁻²⁶. A product of two is a
                     multiple of 2⁻⁵², and no partial sum of a dot product of unit vectors reaches
                     2, so float64 holds every one of them exactly.
    a fixed order    other sums are taken pairwise, in an order that their length alone decides
                     (`sums.total`).
    basic operations +, −, ×, ÷ and √ are rounded alike everywhere (IEEE 754), one NumPy call each;
                     exp, log and arccos are not, and are made of them (`functions`).
"""
