"""The device run: in under ten minutes whether the kernels are right on a GPU, how fast they are, and which shapes are best.

    python -m benchmarks.device              on a GPU; `make device` does the same
    python -m benchmarks.device --rehearse   every part on a CPU in the interpreters, at small sizes: its times mean nothing

It needs Python with torch or JAX, array-api-compat and NumPy, and this checkout as the working folder; nothing is installed
or downloaded. Each part is a process of its own with a time limit, and its JSON is written when it ends, however it ends, so
that a run cut short leaves what it had. The exit status is 0 only if every part is right.

    __main__      the parts, their limits, their processes and files
    worker        the process of a part: a JSON line for each row
    correctness   kernels against float64 references: every loss, repeats, a million rows, Pallas
    timing        crossovers, shapes and the bench

`sincere-spec bench --render` makes tables and figures of the files, `sincere-spec bench --adopt FOLDER` the tables by which
`engine="auto"` decides and kernels are launched.
"""
