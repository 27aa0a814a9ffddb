"""What every client asks, and what it must have read when it is done.

Imported by what is measured at start-up, so it imports nothing.
"""

KEY = "sk-not-a-key-of-anyone"
MODEL = "small"
BURST = "burst"
LIVE = "live"
LONG = "long"

SYSTEM = "You are a helpful assistant that answers in one or two sentences."
QUESTION = "Why is the sky blue, and why is it red in the evening?"
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
TEMPERATURE = 0.7
MAX_TOKENS = 128

ANSWER = (
    "Air scatters short waves of light more than long ones, so that blue comes from all over the "
    "sky; in the evening light crosses so much air that mostly red is left of it."
)
TOKEN = " token"
CHUNKS = {BURST: 500, LIVE: 100, LONG: 5_000}

TEXTS = [f"text {number} of sixteen" for number in range(16)]
DIMENSIONS = 1536

BODY = {
    "model": MODEL,
    "messages": MESSAGES,
    "temperature": TEMPERATURE,
    "max_tokens": MAX_TOKENS,
}


def expected_stream(model: str) -> int:
    """Return the characters that a stream of this model brings."""
    return CHUNKS[model] * len(TOKEN)
