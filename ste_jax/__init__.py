"""Self-taught LLM judges on JAX (the method of arXiv 2408.02666)."""

__version__ = "0.1.0"
