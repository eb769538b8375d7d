"""What seeds of test_peer.py have found, each as the smallest case that shows it."""

from __future__ import annotations

from random import Random

from folkmoot.core.events import (
    Chill,
    Finished,
    Generate,
    Generated,
    Plan,
    Prompt,
    Received,
    Send,
    Submitted,
    Warm,
)
from folkmoot.core.gossip import Card, Member, Standing
from folkmoot.core.ids import DeviceId, PromptId
from folkmoot.core.messages import Answer, Ask, Piece, Turn, Usage
from folkmoot.core.peer import Peer, PeerConfig

A, B = DeviceId("a"), DeviceId("b")


def test_a_prefill_step_reaches_the_engine_before_the_job_that_stops_it() -> None:
    """Calm seed 5: the last answer of a layer was the origin's own; the step that its end had begun
    came after the aggregation that the answer began, and the engine had both at once."""
    peer = Peer(A, Card("a", "tiny", 4096, 1.0, "A"), 1, PeerConfig(), Random(1))
    peer.membership.adopt([Member(B, 1, Standing.ALIVE, Card("b", "tiny", 4096, 1.0, "B"))], 0.0)
    prompt = Prompt(PromptId("p"), (Turn("user", "?"),), Plan(mode="fixed", layers=1, proposers=1))
    effects = peer.handle(Submitted(prompt), 0.0)
    (theirs,) = [e.message.job for e in effects if isinstance(e, Send) and isinstance(e.message, Ask)]
    (own,) = [e.job for e in effects if isinstance(e, Generate)]
    peer.handle(Generated(own, "mine"), 0.1)
    peer.handle(Received(B, Piece(theirs, 0, "theirs")), 0.2)
    peer.handle(Received(B, Answer(theirs, 6, 0.0, Usage())), 0.3)
    effects = peer.handle(Finished(own, Usage()), 0.4)
    kinds = [type(e) for e in effects if isinstance(e, Warm | Chill | Generate)]
    assert kinds == [Warm, Chill, Generate]
