"""Stock clients: the official SDKs of OpenAI and Anthropic drive the same gateway, and the same model, unchanged."""

import anthropic
import openai
from local_gateway import MODEL, gateway


def ask_openai(url: str) -> None:
    """By OpenAI's client, streamed."""
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": "Say it as OpenAI."}]
        with client.chat.completions.create(model=MODEL, messages=messages, stream=True, max_tokens=20) as stream:
            for chunk in stream:
                print("".join(choice.delta.content or "" for choice in chunk.choices), end="", flush=True)
    print("\n")


def ask_anthropic(url: str) -> None:
    """By Anthropic's client, streamed."""
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": "Say it as Anthropic."}]
        with client.messages.stream(model=MODEL, messages=messages, max_tokens=20) as stream:
            for piece in stream.text_stream:
                print(piece, end="", flush=True)
            print("\nstopped by:", stream.get_final_message().stop_reason, "\n")


def see_an_error(url: str) -> None:
    """Errors are those that each client knows: its own classes, with a code that says what happened."""
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        try:
            client.chat.completions.create(model="mock-429", messages=[{"role": "user", "content": "Hello"}])
        except openai.RateLimitError as error:
            print("refused, as asked for:", error.code, "- try again in", error.response.headers["retry-after"], "s")


def main() -> None:
    """Both clients, one gateway."""
    with gateway() as url:
        ask_openai(url)
        ask_anthropic(url)
        see_an_error(url)


if __name__ == "__main__":
    try:
        main()
    except (openai.OpenAIError, anthropic.AnthropicError) as error:
        raise SystemExit(f"not answered: {error}") from error
