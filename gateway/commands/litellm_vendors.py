"""What stands before the slash in a model of LiteLLM, in Atlas's words.

Names are those of LiteLLM's pages on providers (docs.litellm.ai/docs/providers, November 2026), the variables those
from which it takes a key where the file names none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One vendor: Atlas's preset, and LiteLLM's variable for its key."""

    preset: str
    key: str | None = None


VENDORS = {
    "anthropic": Vendor(preset="anthropic", key="ANTHROPIC_API_KEY"),
    "azure": Vendor(preset="azure", key="AZURE_API_KEY"),
    "cerebras": Vendor(preset="cerebras", key="CEREBRAS_API_KEY"),
    "cohere": Vendor(preset="cohere", key="COHERE_API_KEY"),
    "cohere_chat": Vendor(preset="cohere", key="COHERE_API_KEY"),
    "deepinfra": Vendor(preset="deepinfra", key="DEEPINFRA_API_KEY"),
    "deepseek": Vendor(preset="deepseek", key="DEEPSEEK_API_KEY"),
    "fireworks_ai": Vendor(preset="fireworks", key="FIREWORKS_AI_API_KEY"),
    "gemini": Vendor(preset="gemini-openai", key="GEMINI_API_KEY"),
    "github": Vendor(preset="github", key="GITHUB_API_KEY"),
    "groq": Vendor(preset="groq", key="GROQ_API_KEY"),
    "hosted_vllm": Vendor(preset="vllm"),
    "huggingface": Vendor(preset="huggingface", key="HF_TOKEN"),
    "litellm_proxy": Vendor(preset="litellm"),
    "llamafile": Vendor(preset="llamacpp"),
    "lm_studio": Vendor(preset="lmstudio"),
    "mistral": Vendor(preset="mistral", key="MISTRAL_API_KEY"),
    "moonshot": Vendor(preset="moonshot", key="MOONSHOT_API_KEY"),
    "nebius": Vendor(preset="nebius", key="NEBIUS_API_KEY"),
    "nvidia_nim": Vendor(preset="nvidia", key="NVIDIA_NIM_API_KEY"),
    "ollama": Vendor(preset="ollama"),
    "ollama_chat": Vendor(preset="ollama"),
    "openai": Vendor(preset="openai", key="OPENAI_API_KEY"),
    "openrouter": Vendor(preset="openrouter", key="OPENROUTER_API_KEY"),
    "perplexity": Vendor(preset="perplexity", key="PERPLEXITYAI_API_KEY"),
    "sambanova": Vendor(preset="sambanova", key="SAMBANOVA_API_KEY"),
    "together_ai": Vendor(preset="together", key="TOGETHERAI_API_KEY"),
    "vllm": Vendor(preset="vllm"),
    "xai": Vendor(preset="xai", key="XAI_API_KEY"),
}

COMPATIBLE = frozenset({"custom_openai", "databricks", "openai_like", "xinference"})
"""They speak OpenAI's chat API at the address that the file gives."""

WITHOUT_PREFIX = (("claude", "anthropic"), ("gpt-", "openai"), ("chatgpt-", "openai"), ("o1", "openai"),
                  ("o3", "openai"), ("o4", "openai"))  # fmt: skip
"""How the models begin that LiteLLM knows without a vendor."""

STRATEGIES = {
    "simple-shuffle": ("weighted", None),
    "least-busy": ("least_busy", None),
    "latency-based-routing": ("fastest", None),
    "cost-based-routing": ("cheapest", None),
    "usage-based-routing": ("least_busy", "streams at once are counted, not tokens a minute"),
    "usage-based-routing-v2": ("least_busy", "streams at once are counted, not tokens a minute"),
}
"""The strategy of Atlas, and how it differs."""
