"""Fields made smaller: weights and neurons that are not needed, and a scene in as many bytes as one says."""
