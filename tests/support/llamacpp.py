"""A real llama.cpp server: an upstream that shares no code with Atlas and needs no network.

    model = write_model(folder / "tiny.gguf")
    with serving(model) as url:                 # http://127.0.0.1:PORT
        ...

The model has random weights and one block. Its answers are words of a small vocabulary, without sense and without end:
a request has to bound them. Unless it says otherwise the likeliest word is taken, so that the same question has the
same answer. Oddity, on purpose: the first component of every embedding is constant and the output looks at it, which
keeps bytes and control tokens out of the answers; they would be no UTF-8, and end at any moment.

The server runs in a process of its own, which ends with the block, and by itself when its parent is gone.
"""

import importlib.util
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_READY_S = 20
_STEMS = ("sea", "wind", "stone", "light", "river", "cloud", "bird", "leaf")
WORDS = tuple(f"{stem}{end}" for stem in _STEMS for end in ("", "s", "like", "ward", "ful", "less"))
CONTEXT = 32_768
_WIDTH, _HIDDEN, _HEADS = 32, 64, 2
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1
_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"

_SERVE = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.n_threads_http = int(sys.argv[2]), 2, 4
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.sampling.temp = 0.0
params.warmup, params.ui, params.fit_params, params.endpoint_slots = False, False, False, True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def missing() -> str | None:
    """Why there can be no such server here; None if there can."""
    absent = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} cannot be had on this platform" if absent else None


def write_model(path: Path) -> Path:
    """A llama of about 130 KB; the same one each time."""
    import gguf

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(f"▁{word}" for word in WORDS)]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * (1 + len(WORDS))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0 if kind != _NORMAL else -1.0 for kind in kinds])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(_TEMPLATE)
    for name, tensor in _tensors(kinds).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(kinds: list[int]) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(7)

    def drawn(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    ones = np.ones(_WIDTH, np.float32)
    embedding, output = drawn(len(kinds), _WIDTH), drawn(len(kinds), _WIDTH) * 5
    embedding[:, 0] = 3
    output[:, 0] = [0 if kind == _NORMAL else -50 for kind in kinds]
    tensors = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": ones}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors[f"blk.0.{name}.weight"] = drawn(_WIDTH, _WIDTH)
    for name in ("ffn_gate", "ffn_up"):
        tensors[f"blk.0.{name}.weight"] = drawn(_HIDDEN, _WIDTH)
    tensors["blk.0.ffn_down.weight"] = drawn(_WIDTH, _HIDDEN)
    for name in ("attn_output", "ffn_down"):
        tensors[f"blk.0.{name}.weight"][0] = 0  # nothing is added to the constant component
    return {**tensors, "blk.0.attn_norm.weight": ones, "blk.0.ffn_norm.weight": ones}


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """A running server: its address without a path."""
    log = model.with_suffix(".log")
    command = [sys.executable, "-c", _SERVE, str(model), str(CONTEXT)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield _address(process, log)
    finally:
        process.kill()
        process.communicate()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """What it prints once it listens."""
    assert process.stdout is not None
    deadline = time.monotonic() + _READY_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(deadline - time.monotonic(), 0)):
            line = process.stdout.readline().decode().strip()
            if line.startswith("http://"):
                return line
            assert line or process.poll() is None, f"llama.cpp ended: {log.read_text()}"
    raise AssertionError(f"llama.cpp is not there after {_READY_S} s: {log.read_text()}")
