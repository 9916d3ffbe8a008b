"""The parts of a study: which trainings each needs, and which claims it judges."""
