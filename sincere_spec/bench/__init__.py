"""Speed and memory of the losses, against the plain formula in the same framework and against installed peers.

    settings    what a run measures, and its limits
    inputs      what a loss is timed on
    cases       the losses, their inputs, and the programs that are compared
    frameworks  one module each: arrays, gradients, the unit product, the plain formulas
    relations   what a call may say of its pairs, beside the plain loss
    peers       other packages' losses, as their users call them
    worker      the process that measures; prints one JSON line for each event
    resident    the memory of a process, as the system counts it
    process     the other side: starts a worker, watches its time and memory, ends it at a limit
    measure     a whole run: times, memory, the overhead of a call
    crossover   from how many pairs on tiles are faster than the matrix
    results     what was measured, as data
    device      the results of a device run: tables, figures, and the tables of the package made from them
    report      Markdown tables of results, and the page's
    plots       figures of results
    command     what `sincere-spec bench` does

Forward and backward together are one time. A time is quoted in milliseconds and in units: one unit is one similarity
matrix, 2 N² D floating-point operations done as products of 512-row tiles into one reused buffer, in the same process,
framework and dtype. Nothing is imported before it is needed; each framework runs in processes of its own.
"""
