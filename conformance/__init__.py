"""The conformance suite: cases as data, an oracle of its own, and a runner with one process per framework."""

if __name__ == "conformance":
    raise ImportError(
        "import sincere_spec.conformance, not conformance: this folder of the repository is a subpackage "
        "of sincere_spec, and under a second name it would be loaded twice."
    )
