"""The oracle: every loss as scalar loops of 80 digits, written from the published formulas, and the suite made with it.

It shares no line with the package. ``loops.py`` holds the formulas and ``differences.py`` takes gradients as central
differences of their values; ``conditioning.py`` says how much rounding any correct program must be allowed, and
``recipes.py`` which cases there are. ``python -m sincere_spec.conformance.oracle --write`` makes the suite's files and
``--check`` makes them again and compares; ``balls.py`` proves their digits by formulas and arithmetic of its own.
``digits.py`` is the same mathematics in NumPy for real data.
"""
