"""Configurations of LiteLLM's proxy, as people write them, become configurations that Atlas takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load
from config.settings import Settings
from gateway.cli import main

LOAD_BALANCED = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://my-endpoint-europe.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_EU
      api_version: "2024-08-01-preview"
      rpm: 6
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      rpm: 24
      tpm: 100000
      max_parallel_requests: 10
  - model_name: claude
    litellm_params:
      model: anthropic/claude-opus-5-5
      api_key: os.environ/ANTHROPIC_API_KEY
      stream_timeout: 30
    model_info: {max_input_tokens: 200000, max_output_tokens: 64000, supports_vision: false}
router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: {gpt-4: gpt-4o}
  timeout: 120
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  redis_port: 6380
litellm_settings:
  num_retries: 3
  allowed_fails: 3
  cooldown_time: 30
  fallbacks: [{claude: [gpt-4o]}]
  success_callback: [langfuse]
general_settings:
  master_key: sk-1234
  database_url: postgresql://user:hunter2@db/litellm
environment_variables: {LANGFUSE_HOST: https://x}
"""

LOCAL = """
model_list:
  - model_name: "ollama/*"
    litellm_params: {model: "ollama_chat/*", api_base: "http://10.0.0.5:11434"}
  - model_name: vllm-models
    litellm_params:
      {model: openai/facebook/opt-125m, api_base: "http://10.0.0.6:8000/v1", api_key: none, temperature: 0.2}
  - model_name: qwen
    litellm_params:
      model: hosted_vllm/Qwen/Qwen3-32B
      api_base: os.environ/VLLM_URL
      input_cost_per_token: 0.0000002
      output_cost_per_token: 6e-7
  - model_name: embeddings
    litellm_params: {model: openai/text-embedding-3-small, api_key: os.environ/OPENAI_API_KEY}
    model_info: {mode: embedding}
"""

VENDORS = """
credential_list:
  - credential_name: shared
    credential_values: {api_key: os.environ/SHARED_KEY, api_base: "https://r.openai.azure.com"}
model_list:
  - {model_name: azure-new, litellm_params: {model: azure/dep, litellm_credential_name: shared}}
  - model_name: bare
    litellm_params: {model: gpt-4o-mini, organization: org-1, extra_headers: {x-team: blue, "bad name": x}}
  - model_name: bare-claude
    litellm_params: {model: claude-sonnet-5, api_key: sk-ant-canary, api_base: "https://relay.example/v1"}
  - {model_name: fast, litellm_params: {model: groq/llama-3.3-70b-versatile, order: 1}}
  - {model_name: fast, litellm_params: {model: together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo, order: 2}}
  - {model_name: or, litellm_params: {model: openrouter/anthropic/claude-opus-5-5, timeout: 10}}
  - {model_name: gem, litellm_params: {model: gemini/gemini-3-pro}}
  - {model_name: bedrock, litellm_params: {model: bedrock/anthropic.claude-v2, aws_region_name: us-east-1}}
  - {model_name: vertex, litellm_params: {model: vertex_ai/gemini-3-pro}}
  - {model_name: "*", litellm_params: {model: "*"}}
  - {model_name: mystery, litellm_params: {model: some-model}}
  - {model_name: busy, litellm_params: {model: openai/a, weight: 1}, model_info: {id: first}}
  - {model_name: busy, litellm_params: {model: openai/b, weight: 3}, model_info: {id: first}}
  - [no, mapping]
router_settings: {routing_strategy: usage-based-routing-v2, enable_pre_call_checks: true}
litellm_settings: {default_fallbacks: [or, nowhere], drop_params: true}
"""

ENVIRON = {
    name: f"value-of-{name}" for name in (
        "AZURE_API_KEY_EU", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "REDIS_PASSWORD", "SHARED_KEY", "GROQ_API_KEY",
        "TOGETHERAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY",
    )
} | {"VLLM_URL": "http://vllm:8000/v1", "REDIS_HOST": "redis"}  # fmt: skip


def imported(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Settings, str]:
    """What Atlas makes of the converted file, and what was said about it."""
    source, made = folder / "config.yaml", folder / "atlas.yaml"
    source.write_text(text)
    assert main(["import-litellm", str(source)], {}) == 0
    captured = capsys.readouterr()
    made.write_text(captured.out)
    return load(made, ENVIRON), captured.err


def by_name(settings: Settings) -> dict[str, Any]:
    """Endpoints."""
    return {each.name: each for each in settings.endpoints}


def by_model(settings: Settings) -> dict[str, Any]:
    """Routes."""
    return {each.model: each for each in settings.routes}


def test_a_load_balanced_proxy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Deployments become endpoints of a weighted route, fallbacks its further endpoints, aliases further routes."""
    settings, said = imported(LOAD_BALANCED, tmp_path, capsys)
    endpoints, routes = by_name(settings), by_model(settings)
    azure = endpoints["gpt-4o-azure"]
    assert azure.base_url == (
        "https://my-endpoint-europe.openai.azure.com/openai/deployments/gpt-4o-eu?api-version=2024-08-01-preview"
    )
    assert (azure.auth, azure.weight, endpoints["gpt-4o-openai"].weight) == ("api-key", 0.25, 1.0)
    assert azure.keys[0].get_secret_value() == "value-of-AZURE_API_KEY_EU"
    openai = endpoints["gpt-4o-openai"]
    assert openai.limits.model_dump() == {"max_concurrent": 10, "rpm": 24, "tpm": 100000}
    assert (openai.timeouts.total_s, openai.breaker.failures, openai.breaker.open_s) == (120, 3, 30)
    claude = endpoints["claude-anthropic"]
    assert (claude.kind, claude.model, claude.timeouts.first_token_s) == ("anthropic", "claude-opus-5-5", 30)
    assert (claude.profile.context_tokens, claude.profile.output_tokens) == (200_000, 64_000)
    assert claude.profile.lacks == ("images",)
    assert (routes["gpt-4o"].strategy, routes["gpt-4o"].endpoints) == ("weighted", ("gpt-4o-azure", "gpt-4o-openai"))
    assert routes["gpt-4"].endpoints == routes["gpt-4o"].endpoints
    assert routes["claude"].endpoints == ("claude-anthropic", "gpt-4o-azure", "gpt-4o-openai")
    assert settings.journal.url == "redis://:value-of-REDIS_PASSWORD@redis:6380"
    for lost in ("litellm_settings.success_callback", "litellm_settings.num_retries", "general_settings.database_url",
                 "environment_variables"):  # fmt: skip
        assert f"  - {lost}: " in said
    assert "atlas keys create" in said
    for secret in ("sk-1234", "hunter2"):
        assert secret not in said
    assert "sk-1234" not in (tmp_path / "atlas.yaml").read_text()


def test_servers_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Local servers keep their addresses, wildcards pass the model on, embeddings are told to have no place."""
    settings, said = imported(LOCAL, tmp_path, capsys)
    endpoints, routes = by_name(settings), by_model(settings)
    assert routes["ollama/*"].endpoints == ("ollama-any-ollama_chat",)
    ollama = endpoints["ollama-any-ollama_chat"]
    assert (ollama.kind, ollama.base_url, ollama.model) == ("ollama", "http://10.0.0.5:11434", "*")
    plain = endpoints["vllm-models-openai"]
    assert (plain.preset, plain.base_url, plain.model) == (None, "http://10.0.0.6:8000/v1", "facebook/opt-125m")
    vllm = endpoints["qwen-hosted_vllm"]
    assert (vllm.preset, vllm.base_url, vllm.model) == ("vllm", "http://vllm:8000/v1", "Qwen/Qwen3-32B")
    assert vllm.price is not None
    assert (vllm.price.input, vllm.price.output) == (0.2, 0.6)
    assert "embeddings" not in routes
    assert "model_list[3] (embeddings): mode embedding: Atlas serves chat models only" in said
    assert "model_list[1] (vllm-models).litellm_params.temperature: no equivalent" in said


def test_many_vendors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Vendors are found by prefix or by name; what has no wire is listed with its reason, and nothing is dropped."""
    settings, said = imported(VENDORS, tmp_path, capsys)
    endpoints, routes = by_name(settings), by_model(settings)
    new = endpoints["azure-new-azure"]
    assert (new.base_url, new.model) == ("https://r.openai.azure.com/openai/v1", "dep")
    assert new.keys[0].get_secret_value() == "value-of-SHARED_KEY"
    bare = endpoints["bare-openai"]
    assert (bare.preset, bare.model) == ("openai", "gpt-4o-mini")
    assert {name: value.get_secret_value() for name, value in bare.headers.items()} == {
        "x-team": "blue", "openai-organization": "org-1",
    }  # fmt: skip
    assert endpoints["bare-claude-anthropic"].base_url == "https://relay.example"
    assert (endpoints["fast-groq"].priority, endpoints["fast-together_ai"].priority) == (1, 2)
    assert endpoints["fast-together_ai"].model == "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    assert endpoints["gem-gemini"].preset == "gemini-openai"
    assert routes["fast"].strategy == "priority"
    assert routes["busy"].endpoints == ("first", "first-2", "or-openrouter")
    assert routes["or"].endpoints == ("or-openrouter",)
    for lost in (
        "model_list[7] (bedrock): Atlas has no wire for 'bedrock'", "model_list[8] (vertex): ", "model_list[9] (*): ",
        "model_list[10] (mystery): the vendor of 'some-model' is not named", "model_list[13]: it has no model_name",
        "fallbacks of bare: there is no 'nowhere'", "'bad name' is no name of an HTTP header",
        "router_settings.enable_pre_call_checks: always on",
    ):  # fmt: skip
        assert lost in said
    assert "sk-ant-canary" not in said
    assert "keys stand in the file itself" in said


STRATEGIES = [
    ("simple-shuffle", "weighted"),
    ("least-busy", "least_busy"),
    ("latency-based-routing", "fastest"),
    ("cost-based-routing", "cheapest"),
    ("usage-based-routing-v2", "least_busy"),
    ("brand-new", "weighted"),
]


@pytest.mark.parametrize(("theirs", "ours"), STRATEGIES)
def test_strategies(theirs: str, ours: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each strategy of LiteLLM's has one of Atlas's; where they differ, that is said."""
    rows = [{"model_name": "m", "litellm_params": {"model": f"openai/{name}"}} for name in "ab"]
    text = yaml.safe_dump({"model_list": rows, "router_settings": {"routing_strategy": theirs}})
    settings, said = imported(text, tmp_path, capsys)
    assert by_model(settings)["m"].strategy == ours
    assert ("became" in said) == (theirs in {"usage-based-routing-v2", "brand-new"})


@pytest.mark.parametrize(
    "text", ["model_list: [", "[]", "{}", "model_list: 3", "\x00", "model_list: *x", "- " * 20_000]
)
def test_what_is_no_configuration(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What LiteLLM could not read either gives 2 and one line with the file's name."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert main(["import-litellm", str(file)], {}) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(str(file))
    assert len(captured.err.splitlines()) == 1


def test_nothing_to_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of which nothing can be used gives 1, and an empty answer."""
    file = tmp_path / "config.yaml"
    file.write_text("model_list: [{model_name: b, litellm_params: {model: bedrock/x}}]")
    assert main(["import-litellm", str(file)], {}) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("Nothing could be converted.\n")
    assert main(["import-litellm", str(tmp_path / "missing.yaml")], {}) == 2


def test_files_as_they_lie_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Variables that a shell fills in are Atlas's, too, and models that answer no chat are told of without a mode."""
    text = """
model_list:
  - {model_name: local, litellm_params: {model: "ollama_chat/${MODEL:-llama4}", api_base: "${OLLAMA_BASE_URL}"}}
  - {model_name: front, litellm_params: {model: anthropic/claude-opus-5-5, api_key: "${ANTHROPIC_API_KEY}"}}
  - {model_name: vectors, litellm_params: {model: openai/text-embedding-3-large, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: order, litellm_params: {model: cohere/rerank-english-v3.0}}
  - {model_name: voice, litellm_params: {model: openai/gpt-4o-mini-tts}}
  - {model_name: named, litellm_params: {model: openai/whisper-chat}, model_info: {mode: chat}}
"""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert main(["import-litellm", str(file)], {}) == 0
    captured = capsys.readouterr()
    made = yaml.safe_load(captured.out)
    assert [each["model"] for each in made["routes"]] == ["local", "front", "named"]
    assert made["endpoints"][0]["model"] == "${MODEL:-llama4}"
    assert made["endpoints"][0]["base_url"] == "${OLLAMA_BASE_URL}"
    assert made["endpoints"][1]["keys"] == ["${ANTHROPIC_API_KEY}"]
    assert captured.err.count("is no chat model by its name") == 3
    assert "keys stand in the file itself" not in captured.err


def test_odd_values_do_not_break_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values of types that nobody expects are told of or left out; what is made loads all the same."""
    text = """
model_list:
  - model_name: a
    litellm_params: {model: openai/a, rpm: os.environ/RPM, tpm: none, weight: x, timeout: soon}
    model_info: 3
  - {model_name: z, litellm_params: {model: openai/z}, model_info: {mode: {}}}
  - {model_name: "odd/näme with spaces", litellm_params: {model: "openai/${x}", api_key: "${canary"}}
  - {model_name: a, litellm_params: 5}
  - {model_name: n, litellm_params: {model: openai/n, api_base: "not a url"}}
router_settings: [1]
litellm_settings: {fallbacks: {a: b}, request_timeout: x, allowed_fails: -1, cooldown_time: 1e9}
general_settings: null
"""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert main(["import-litellm", str(file)], {}) == 0
    captured = capsys.readouterr()
    made = yaml.safe_load(captured.out)
    assert [each["model"] for each in made["routes"]] == ["a", "odd/näme with spaces", "n"]
    assert made["endpoints"][0]["limits"] == {"rpm": "${RPM}"}
    assert made["endpoints"][1]["model"] == "$${x}"
    assert "(a).tpm: a positive number was expected" in captured.err
    assert "Traceback" not in captured.err
