"""How much of anything a peer may send. Whatever lies outside is refused before an object is made of it.

Keys are `Class.field`. A field that is not named gets the default of its kind. The numbers are generous
guesses, unless a comment says otherwise: they bound memory and keep arithmetic safe, they shape nothing.
"""

from __future__ import annotations

from folkmoot.core.choice import MAX_LAYERS
from folkmoot.core.gossip import SEAL_BYTES

DATAGRAM_BYTES = 1_200
"""A datagram with all its fields. QUIC over Ethernet carries 1,414."""
FRAME_BYTES = 4 << 20
"""One message on a stream."""

TEXT = 256
"""Characters of a text that is not named below."""
ITEMS = 64
"""Length of a tuple that is not named below."""
WHOLE = (0, 2**53 - 1)
"""Range of an int that is not named below: what every JSON reader can hold exactly."""
REAL = (0.0, 1e9)
"""Range of a float that is not named below (most are seconds); never infinite, never NaN."""

TEXTS = {
    "Card.address": 512,
    "Card.model": 128,
    "Card.name": 64,
    "Inference.answers": 1 << 20,
    "Inference.begun": 1 << 20,
    "Inference.fence": 32,
    "Inference.task": 2_000,
    "Piece.text": 1 << 20,
    "Turn.content": 1 << 20,
    "Turn.role": 32,
    "Undone.code": 64,
    "Undone.detail": 2_000,
}
"""Characters, of each text where the field is a tuple of texts."""

CONTROLS = r"\x00-\x1f\x7f-\x9f"
"""C0, DEL and C1, as they stand in a regular expression: they steer terminals."""

PRINTABLE = {"Card.model", "Card.name", "Inference.fence", "Undone.code"}
"""Texts without them: names that are shown as they are."""

LENGTHS = {
    "Card.right": 6,
    "Card.total": 6,
    "Heartbeat.hot": 64,
    "Heartbeat.rumours": 64,
    "Hot.stages": 3,
    "Inference.answers": 64,
    "Inference.conversation": 1_000,
    "News.members": 64,
    "News.rumours": 64,
    "Pulse.stages": 3,
    "Sampling.stop": 16,
    "Sync.claims": 2_000,
    "SyncReply.members": 2_000,
    "SyncReply.wants": 2_000,
}
"""Items of a tuple."""

BYTES = {"Card.seal": SEAL_BYTES}
"""Length of what is bytes; none that is not named is."""

LEAST = {"Inference.conversation": 1}
"""The fewest of them, where none at all mean nothing."""

NUMBERS: dict[str, tuple[float, float]] = {
    "Ask.hops": (0, 16),
    "Ask.layer": (0, MAX_LAYERS + 1),
    "Card.context_tokens": (0, 2**31 - 1),
    "Card.probes": (0, 2**32 - 1),
    "Card.right": (0, 127),
    "Card.skill": (-1e9, 1e9),
    "Card.slots": (1, 4_096),
    "Card.total": (0, 127),
    "Heartbeat.view": (0, 2**64 - 1),
    "Hot.tag": (0, 2**64 - 1),
    "Inference.expected": (0, 1_000),
    "Inference.suspect": (0, 64),
    "Rumour.card": (0, 2**32 - 1),
    "Sampling.max_tokens": (1, 131_072),
    "Sampling.seed": (-(2**63), 2**63 - 1),
    "Sampling.temperature": (0.0, 2.0),
    "Sampling.top_p": (0.0, 1.0),
}
"""Smallest and largest value, both allowed."""
