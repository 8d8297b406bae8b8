"""Atlas: a gateway in front of LLM providers whose every stream is a durable, controllable, resumable object."""

__version__ = "0.1.0"
