"""What Ollama's error bodies mean: `{"error": "text"}`, in an answer as in a stream. Pure.

There are no codes, so the words decide: those of the server's `routes.go`, `sched.go` and `llm/server.go`.
"""

from gateway.core.errors import Category
from gateway.providers._errors import Vocabulary, words
from gateway.providers._vocabulary import CODES, STATUSES, WORDS

_WORDS = (
    words(r"model\ requires\ more\ system\ memory | out\ of\ memory", Category.OVERLOADED, None),
    words(r"maximum\ pending\ requests | server\ busy", Category.OVERLOADED, None),
    words(r"\bcontext\ length\b | prompt\ too\ long | exceeds\ .{0,200}\bcontext\b", Category.CONTEXT_LENGTH, None),
    words(r"request\ cancell?ed | context\ cancell?ed", Category.UPSTREAM_5XX, frozenset({499, 500})),
    words(r"error\ was\ encountered\ while\ running\ the\ model", Category.STREAM_ERROR, frozenset()),
    words(r"runner\ process", Category.UPSTREAM_5XX, None),
    *WORDS,
)
_VOCABULARY = Vocabulary(codes=CODES, words=_WORDS, statuses=STATUSES)

from_answer = _VOCABULARY.from_answer
from_stream = _VOCABULARY.from_stream
in_success = _VOCABULARY.in_success
