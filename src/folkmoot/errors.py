"""Every error that Folkmoot raises on purpose.

    FolkmootError
    ├── ConfigError              a flag, file or variable says something impossible
    ├── ProtocolError            (never raised itself)
    │   ├── LocalProtocolError   our own code broke the protocol: a bug here
    │   └── RemoteProtocolError  a peer broke it: its message is dropped or its link closed
    ├── AdmissionError           a stranger, a wrong key, a spent or expired invitation
    ├── EngineError              the model runtime failed
    │   ├── EngineUnreachable    nothing answers at its address
    │   └── WeightsError         weights missing, damaged or of another checksum
    ├── PromptError              this prompt cannot be answered (never raised itself)
    │   ├── PromptInvalid        a parameter out of range
    │   ├── PromptTooLong        more tokens than the context holds
    │   ├── UnknownModel         no such model or device
    │   ├── Overloaded           a queue is full
    │   ├── BudgetSpent          this device's own users have spent what they may today
    │   ├── NoDevice             no live device can serve it
    │   ├── DeadlinePassed       `deadline_s` is over
    │   ├── WaitedTooLong        its first job waited for longer than `max_wait_s`
    │   ├── AnswerCut            the answer broke off after its first words were shown
    │   └── PromptCancelled      its user went away
    ├── TheoryError              a closed form or a simulation was asked what it does not hold for
    │   └── UnstableQueue        a mean is asked of a queue that grows without bound
    ├── TheoryMismatch           a closed form and the simulator disagree
    ├── EvalError                an evaluation lacks a file, a model or a record, or one of them is another's
    └── NodeError                the daemon cannot start or go on (port taken, disk full)
        └── JournalError         the journal cannot be used; the device goes on without it
            └── JournalFull      no room for another prompt in it

`code` is the stable, machine-readable name: it crosses the network and stands in JSON.
"""

from __future__ import annotations

from typing import ClassVar


class FolkmootError(Exception):
    """Root of the tree. The message states the value, the bound and the remedy."""

    code: ClassVar[str] = "error"


class ConfigError(FolkmootError):
    """A setting says something impossible; the message names the setting and where it came from."""

    code = "config"


class ProtocolError(FolkmootError):
    """Parent of the two protocol errors; raise one of them instead."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """Our side broke the protocol: a bug in Folkmoot."""

    code = "local_protocol"


class RemoteProtocolError(ProtocolError):
    """A peer broke the protocol: malformed, oversized or out of turn."""

    code = "remote_protocol"


class AdmissionError(FolkmootError):
    """Who wants in is not a member: a stranger, a wrong key, a spent or expired invitation."""

    code = "admission"


class EngineError(FolkmootError):
    """The model runtime failed at a job."""

    code = "engine_failed"


class EngineUnreachable(EngineError):
    """Nothing answers where the engine should be."""

    code = "engine_unreachable"


class WeightsError(EngineError):
    """Weights are missing, damaged or do not match their checksum."""

    code = "weights"


class PromptError(FolkmootError):
    """Parent of the errors that end one prompt; raise one of them instead."""

    code = "prompt"


class PromptInvalid(PromptError):
    """A parameter of the prompt is out of range; the message names it."""

    code = "invalid"


class PromptTooLong(PromptError):
    """The prompt has more tokens than the context holds."""

    code = "too_long"


class UnknownModel(PromptError):
    """No model, preset or device of that name."""

    code = "unknown_model"


class Overloaded(PromptError):
    """A queue is full; the prompt may be tried again later."""

    code = "overloaded"


class BudgetSpent(PromptError):
    """This device's engine bills, and its own users have spent what they may today."""

    code = "over_budget"


class NoDevice(PromptError):
    """No live device can serve the prompt."""

    code = "no_device"


class DeadlinePassed(PromptError):
    """The prompt's own deadline is over."""

    code = "deadline"


class WaitedTooLong(PromptError):
    """A first-layer job of the prompt waited in a queue for longer than `max_wait_s`."""

    code = "waited"


class AnswerCut(PromptError):
    """The answer broke off after its first words had been shown, and nobody could go on with it; it is not whole."""

    code = "answer_cut"


class PromptCancelled(PromptError):
    """The prompt's user went away or took it back."""

    code = "cancelled"


class TheoryError(FolkmootError):
    """An argument lies outside the conditions under which a closed form or a simulation holds."""

    code = "theory"


class UnstableQueue(TheoryError):
    """A mean is asked of a queue that grows without bound; the message names the load."""

    code = "unstable"


class TheoryMismatch(FolkmootError):
    """A closed form and the simulator disagree: one of the two is wrong."""

    code = "theory_mismatch"


class EvalError(FolkmootError):
    """An evaluation cannot go on: a file of tasks or records is missing or none of its own."""

    code = "eval"


class NodeError(FolkmootError):
    """The daemon cannot start or go on: a taken port, a full disk, a broken home."""

    code = "node"


class JournalError(NodeError):
    """The journal is damaged or its disk fails: nothing is accepted in the background, the rest goes on."""

    code = "journal"


class JournalFull(JournalError):
    """The journal's disk, or the room that is set for it, is full: nothing more is accepted in the background."""

    code = "journal_full"


PROMPT_ERRORS: dict[str, type[PromptError]] = {
    error.code: error
    for error in (
        PromptInvalid,
        PromptTooLong,
        UnknownModel,
        Overloaded,
        BudgetSpent,
        NoDevice,
        DeadlinePassed,
        WaitedTooLong,
        AnswerCut,
        PromptCancelled,
    )
}
"""The errors that may end a prompt, by code."""
