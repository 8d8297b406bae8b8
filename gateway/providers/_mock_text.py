"""What the mock says: readable prose, a function of model, question and choice alone.

A token is a word with its leading white space. Words come lazily, so a million of them cost no memory. Every answer
ends with a whole sentence: there is one closing for each number of words that can be left over.
"""

import hashlib
import random
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

_SENTENCES = tuple(
    sentence.split()
    for sentence in (
        "The short answer fits on a postcard, and the long one is mostly weather.",
        "Early in the morning the harbour is so quiet that you can hear ropes.",
        'Seen from a distance, "{topic}" is simpler than it looks.',
        "A good map leaves out nearly everything and still brings you home.",
        "Somebody once counted the stairs, and nobody has counted them since.",
        "What matters is to begin with the part that can be checked.",
        'People who work with "{topic}" every day say that patience is half of it.',
        "The second attempt is usually better, because the first one asked the question.",
        "Rain came over the hills and stayed just long enough to be useful.",
        "There is a small library behind the station where the clocks agree.",
        "It helps to say aloud what you expect before you look.",
        'If you remember one thing about "{topic}", remember where it began.',
        "The baker opens at six and is out of bread by nine.",
        "Simple tools, kept sharp, have outlived many clever ones.",
        "A letter takes two days, and the answer takes as long as it needs.",
        "Most surprises are old facts that were standing in another room.",
        "On clear evenings the lighthouse can be seen from the other shore.",
        "Write it down once, plainly, and half of the difficulty is gone.",
        'Nothing about "{topic}" has to be decided in a hurry.',
        "The river bends here because the rock did not.",
        "Three small steps in the right order are worth one large leap.",
        "Her notes were brief, dated, and right more often than not.",
        "In the garden the beans have reached the top of their poles.",
        'The best questions about "{topic}" are the ones that can be answered.',
        "A quiet engine is a sign that somebody cared for it.",
    )
)

# Number i has i + 1 words; no sentence above is longer than the last of these.
_CLOSINGS = tuple(
    sentence.split()
    for sentence in (
        "Good.",
        "That's all.",
        "That is all.",
        "Thank you for asking.",
        "The rest can wait awhile.",
        "And that is where it ends.",
        "Ask again, and I will say more.",
        "There is more, but this will do today.",
        "With that the kettle boils and the day begins.",
        "So much for now, and the rest is for tomorrow.",
        "After that the lamps were lit and everybody went quietly home.",
        "The door stays open, and there is always room for one question.",
        "And so it was left, tidy and plain, for whoever would come next.",
        "If any of this was of use, then the afternoon has been well spent.",
    )
)

_QUOTED_WORDS, _QUOTED_CHARACTERS = 8, 24
_TAG = re.compile(r"</?[\w-]+>")
_TOKEN = re.compile(r"\s*\S+")

# Words that say what to do, not what about.
_PLAIN = re.compile(
    "about|could|explain|give|have|hello|please|tell|that|this|what|when|where|which|with|write", re.IGNORECASE
)

Ending = Literal["stop", "length"]


class Spoken:
    """The tokens of one choice as far as they may be said: at most `limit`, and nothing from a stop string on.

    Iterate once. `ending` holds after the last token: `length` if there was more to say.
    """

    def __init__(self, tokens: Iterable[str], limit: int | None, stops: Iterable[str] = ()) -> None:
        self._tokens = tokens
        self._limit = limit
        self._stops = tuple(filter(None, stops))
        self.ending: Ending = "stop"

    def __iter__(self) -> Iterator[str]:
        limited = self._limited()
        return _before_stop(limited, self._stops) if self._stops else limited

    def _limited(self) -> Iterator[str]:
        for count, token in enumerate(self._tokens):
            if count == self._limit:
                self.ending = "length"
                return
            yield token


def prose(model: str, question: str, choice: int, total: int) -> Iterator[str]:
    """Exactly `total` tokens of an answer that begins by quoting the first words of `question`."""
    question = question.encode("utf-8", "replace").decode()
    seed = hashlib.sha256(f"{model}\0{choice}\0{question}".encode()).digest()
    words = _words(random.Random(seed), _quoted(question), choice, total)
    for number, word in enumerate(islice(words, total)):
        yield f" {word}" if number else word


def tokens(text: str) -> Iterator[str]:
    """The tokens of a text that does not end in white space."""
    return (match.group() for match in _TOKEN.finditer(text))


def _quoted(question: str) -> list[str]:
    """The first few words of the question, the last one marked if there were more; agents' tags are not words."""
    words = [word for word in question.split(maxsplit=2 * _QUOTED_WORDS) if not _TAG.fullmatch(word)]
    quoted = [word[:_QUOTED_CHARACTERS] for word in words[:_QUOTED_WORDS]]
    if len(words) > _QUOTED_WORDS:
        quoted[-1] += "..."
    return quoted


def _words(rng: random.Random, quoted: list[str], choice: int, total: int) -> Iterator[str]:
    left = total
    for sentence in _sentences(rng, quoted, choice):
        if left <= len(_CLOSINGS) and left < total:
            break
        left -= len(sentence)
        yield from sentence
    if left > 0:
        yield from _CLOSINGS[left - 1]


def _sentences(rng: random.Random, quoted: list[str], choice: int) -> Iterator[list[str]]:
    """The opening, then the stock in ever new orders, for ever."""
    topics = (word.strip("\"'.,;:!?()") for word in quoted)
    topic = max((word for word in topics if not _PLAIN.fullmatch(word)), key=len, default="") or "silence"
    start = "You asked:" if choice == 0 else f"Take {choice + 1} on"
    yield f'{start} "{" ".join(quoted) or "nothing"}".'.split()
    while True:
        for sentence in rng.sample(_SENTENCES, len(_SENTENCES)):
            yield [word.format(topic=topic) for word in sentence]


def _before_stop(tokens: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    """Tokens up to the first stop string, which may span tokens: held back while they could be the start of one."""
    reach = max(map(len, stops))
    held: deque[str] = deque()
    window = ""
    for token in tokens:
        held.append(token)
        window += token
        found = [at for stop in stops if (at := window.find(stop)) >= 0]
        if found:
            yield from _prefix(held, min(found))
            return
        while held and len(window) - len(held[0]) >= reach - 1:
            window = window[len(held[0]) :]
            yield held.popleft()
    yield from held


def _prefix(held: Iterable[str], length: int) -> Iterator[str]:
    """The first `length` characters of the joined tokens, still as tokens."""
    for token in held:
        if length <= 0:
            return
        yield token[:length]
        length -= len(token)
