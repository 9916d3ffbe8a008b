"""The study: what the papers of the losses claim, measured by training small encoders on real images, in every framework."""
