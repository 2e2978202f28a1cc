"""Sample traffic, and the true metrics of it, made without any of the pipeline's code."""
