"""Engines: the only place that knows vLLM and ray.serve.llm."""
