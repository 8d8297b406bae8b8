"""Ground truth: what the provider says, known to every observer without asking it.

Token `i` of a stream is a pure function of the stream's seed. Each token carries its own index, so that a loss, a
double or a swap is seen at once and where. Choice `c` of a stream, and its reasoning, have seeds of their own.

Oddities, on purpose: the vocabulary holds what breaks careless code: quotes, backslashes, a line separator, characters
of two to four UTF-8 bytes, joined emoji, an SSE field inside the text, line ends.
"""

import hashlib

_WORDS = (
    *("river", "stone", "a", "the", "of", "window", "seven", "light", "under", "morning", "I", "quickly", "0", "-"),
    *("über", "façade", "日本語", "🙂", "👩‍👩‍👧", "Ελλάδα", "שלום"),
    *('"quoted"', "back\\slash", "line\nbreak", "cr\r\nlf", "\u2028", "data: x\n\n", "tab\t", "</s>", "é"),
)
_REASONING, _CHOICE = 1_000_000_007, 1_000_003


def truth_token(seed: int, i: int) -> str:
    """Token `i`, counted from 0, of the stream with this seed: never empty, ends with its index."""
    digest = hashlib.blake2b(f"{seed}/{i}".encode(), digest_size=4).digest()
    lead = "" if i == 0 else "\n" if digest[0] == 0 else " "
    return f"{lead}{_WORDS[int.from_bytes(digest, 'big') % len(_WORDS)]}{i}"


def truth(seed: int, n: int) -> str:
    """The first `n` tokens in one."""
    return "".join(truth_token(seed, i) for i in range(n))


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one choice; choice 0 keeps the stream's."""
    return seed + choice * _CHOICE


def reasoning_seed(seed: int) -> int:
    """The seed of the reasoning that precedes a text."""
    return seed + _REASONING


def tokens_seen(seed: int, text: str) -> int:
    """How many whole tokens `text` is made of.

    Raises:
        AssertionError: when `text` is not a prefix of the truth that ends between two tokens; says where it departs.
    """
    at = count = 0
    while at < len(text):
        token = truth_token(seed, count)
        if not text.startswith(token, at):
            raise AssertionError(f"token {count} at character {at}: expected {token!r}, saw {text[at : at + 60]!r}")
        at, count = at + len(token), count + 1
    return count
