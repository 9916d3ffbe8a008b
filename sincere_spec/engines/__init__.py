"""The algorithms: dense is the definition; read it first."""
