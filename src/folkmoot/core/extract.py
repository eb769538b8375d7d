"""What an answer says in short, so that answers can be compared: a number, a letter, yes or no, JSON, code, a few words.

Questions and answers are untrusted: all that is looked at is bounded, white space is one blank before any pattern sees it, and every
pattern is linear in what it sees.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from fractions import Fraction

LOOKED_AT = 8_000
"""Characters of an answer that are looked at, its last ones: results stand at the end. Of a question half of them at either end."""

LOOKED_AT_WHOLE = 64_000
"""Characters of an answer up to which its JSON or code is read; what is longer is not read at all, since half of it says nothing."""

MOST_SHORT = 120
"""Characters of an answer in a few words; what is longer is no short answer."""

TREE_CHARACTERS, TREE_BRACKETS, TREE_DEPTH = 16_000, 30, 80
"""Up to so many characters, brackets within brackets and levels of its tree code is compared as Python (guesses: a program in an
answer has some thousand, 5 and 20); a parser and whatever walks a tree go down level by level."""

_LONG = 1_500
"""Characters (a guess) of a question from which on only a form that it asks for is plain, and not how it asks: it holds a text."""
_DIGITS = 30
_FEW = 4
_MARK_LINE = 300
_JSON_STARTS = 8


class Kind(StrEnum):
    """What a question wants. `OPEN` answers cannot be compared by what they say in short."""

    NUMBER = "number"
    LETTER = "letter"
    YES_NO = "yes or no"
    JSON = "JSON"
    CODE = "code"
    SHORT = "a few words"
    OPEN = "open"


# ---- what a question wants -------------------------------------------------------------------------------

_SENTENCES = re.compile(r"(?<=[.!?]) |\n")
_OPTION_LINE = re.compile(r"^(?:\(([A-Z])\)|([A-Z])[).]) ?\S", re.MULTILINE)
_OPTION_INLINE = re.compile(r"(?:^|(?<=\s))\(?([A-Z])\) ?\S")
_CHOOSE = re.compile(r"\b(?:which|choose|select|pick|options?|correct|of the above)\b")
_OPTIONS_SAID = re.compile(r"\boptions:")

_TOLD = r"(?:^|[.!?:;,] |\n|\b(?:please|kindly|then|also|try to|you to|(?<!how )(?:can|could|would|will) you) )(?:please )?"
_WANTS_TEXT = re.compile(
    rf"{_TOLD}(?:write|rewrite|explain|compare|discuss|describe|list(?!:)|summari[sz]e|outline|draft|compose|rephrase|paraphrase|"
    r"translate|suggest|recommend|generate|create|design|tell|provide|show|prove|analy[sz]e|elaborate|brainstorm|give|help|"
    r"come up with|predict|rate|review|make)\b"
    r"|\b(?:and|to) (?:explain|compare|discuss|describe)\b|\b(?:an?|the|this|my|your) (?:\w+ )?(?:essay|outline)\b|\bwhy\b"
)

_LANGUAGE = (
    r"(?<!\w)(?:python|java|javascript|typescript|c\+\+|c#|c|golang|rust|ruby|php|kotlin|swift|scala|haskell|perl|matlab|sql|bash|shell|"
    r"powershell|html|css|regex|gdscript|lua|numpy|pandas|vba)(?![\w+#])"
)
_CODE_ASKED = re.compile(
    rf"{_TOLD}(?:(?:write|implement|complete|create|define|develop|code|provide)(?: me)?|give me) "
    r"(?P<what>(?:[\w+#-]+ ){0,4}?(?P<noun>function|program|script|method|class|query|regex|solution|code|snippet)\b(?! names?\b))"
)
_IN_LANGUAGE = re.compile(_LANGUAGE)
_COMPUTES = re.compile(
    r"\b(?:algorithm|arrays?|strings?|integers?|fibonacci|recursi(?:on|ve)|linked list|binary (?:tree|search)|dynamic programming|"
    r"time complexity|command line|stdin|csv|api|nodes?)\b"
)
_JSON_ASKED = re.compile(
    r"(?<!from )\b(?:as|in|into|to|use|only|valid|an?|one|single) (?:valid |single |pure |raw |one |a )?json\b(?! (?:parser|library|files?|schema)\b)"
)
_GIVES = re.compile(
    r"\b(?:return|output|respond|response|reply|answers?|produce|generate|create|give|list|format|write|provide|identify|extract|wrap|"
    r"wrapped|convert|present|print|use|name)\b"
)
_WONDERS = re.compile(
    r"(?:what|why|how|who|when|where|which|is|are|do|does|explain|describe|discuss|compare)\b"
)

_SAID_FORM = (
    r"\b(?:line|form|format|end|ends|ending|finish|write|put|give|as|with|say|says|that)\b[^.!?\n]{0,40}?\W"
)
_ANSWER_FORM = re.compile(_SAID_FORM + r"answer:")
_ANSWER_LAST = re.compile(r"\banswer:\W*$")
_NUMBER_FORM = re.compile(
    r"\banswer: ?\W{0,2}(?:a |the )?(?:number|integer)\b"
    r"|\b(?:answer|reply|respond) (?:only |just )?(?:with|as|in) (?:only |just )?(?:a|an|one|the) (?:single )?(?:whole )?(?:number|integer)\b"
    r"|\b(?:only|just|nothing but) (?:a|the|one) (?:final )?(?:number|integer)\b|\banswer:['\" ]{0,3}and (?:a|the) number\b"
)
_EITHER = re.compile(
    r"\b(?<!not )(?:answer|reply|respond|say|decide|state)\b[^.!?\n]{0,30}?\W(?:yes or no|yes/no|true or false|\"yes\" or \"no\"|'yes' or 'no')(?!\w)"
    r"|(?:^|[.!?] |\n|\()(?:yes or no|yes/no|true or false|true/false)[:?.)]"
)
_WHAT_IT_MEANS = re.compile(r"(?:what|why|how|when|where|who)\b")
_SHORT_FORM = re.compile(
    r"\bin (?:only |just |exactly )?(?:one|a single) word\b|\bone-word answer\b"
    r"|\b(?:answer|reply|respond) (?:only |just )?with (?:only |just |exactly )?(?:one|a single) word\b"
    r"|\b(?:answer|reply|respond|give|output|return|say)(?: with| me)? (?:only|just|nothing but) the (?:answer|names?|word|result|title|year|date)\b"
    r"|\bnothing but the answer\b"
)

_HOW_MANY = re.compile(r"\bhow (?:many|much(?! of an? )|old|far|long|tall|fast|big|high|heavy|deep)\b")
_SAYS_HOW = re.compile(
    r"\b(?:about|on|of|by|know|matter|see|show|understand|realize|remember|predict|estimate|with) how \w"
)
_HAVE = re.compile(r"\bhow many [^,?\n]{1,60} (?:do|does) (?:i|we|he|she|they) have(?: in total)?\?$")
_AMOUNT = re.compile(
    r"\bwhat(?: is|'s| was| are| were| will be| would be) (?:the |his |her |their |its )?(?:\w+ ){0,3}?"
    r"(?:sum|total|number|product|average|mean|remainder|area|volume|perimeter|probability|age|speed|distance|weight|percentage)\b"
    r"|\bwhat percent(?:age)?\b"
)
_COUNT = re.compile(r"(?:^|[.!?,:] |\n)(?:calculate|compute)\b")
_ANY_NUMBER = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|half|twice|double|triple|third|quarter|hundred|thousand)\b"
)
_SUM_LEAD = re.compile(r"^(?:what is|what's|calculate|compute|evaluate|solve|how much is)\b:? ?")
_SUM = re.compile(r"[-+*/×÷^().,\d ]{3,300}")
_ADDS = re.compile(r"\d\)*(?: ?[+*×÷^]| [-/]) ?[-(]*\d")
_IS_IT = re.compile(
    r"(?:is|are|was(?= (?:the|an?|he|she|his|her|their|that)\b)|were|does|do|did|has|have|had) (?!you\b|there\b|i\b|we\b|it\b|this\b|they\b)[^.!?]{1,120}\?$"
)
_NOT_PLAIN = re.compile(
    r"\b(?:or|any|how|what|why|which|tips?|some|i|my|me|you|your|best|better|mean|meaning)\b"
)


def kind_of(question: str) -> Kind:
    """What a question wants, by its words; `OPEN` where that is not plain.

    Where a form is asked for (yes or no, "Answer: NUMBER"), that decides; else options, then code and JSON; a wish for a text, and
    letters that are not Latin, make it open; then decides how it asks.
    """
    text = _close(_ends(question))
    plain = text.casefold()
    wants_text = _WANTS_TEXT.search(plain) is not None
    if _offers(text, plain, wants_text):
        return Kind.LETTER
    if _NUMBER_FORM.search(plain):
        return Kind.NUMBER
    if _wants_code(plain):
        return Kind.CODE
    sentences = [each for each in _SENTENCES.split(plain) if each]
    if any(_wants_json(sentence) for sentence in sentences):
        return Kind.JSON
    if not wants_text and any(_EITHER.search(each) and not _WHAT_IT_MEANS.match(each) for each in sentences):
        return Kind.YES_NO
    if _ANSWER_FORM.search(plain):
        return Kind.SHORT
    if wants_text or not _mostly_latin(text):
        return Kind.OPEN
    if _SHORT_FORM.search(plain) or _ANSWER_LAST.search(plain[-40:]):
        return Kind.SHORT
    return Kind.OPEN if len(plain) > _LONG else _asked(plain, sentences)


def _asked(plain: str, sentences: list[str]) -> Kind:
    """By how a short question asks that wants no text; the sentence that asks is one of its last two."""
    if _is_sum(sentences[-1] if sentences else ""):
        return Kind.NUMBER
    counts = any(_HOW_MANY.search(each) or _AMOUNT.search(each) for each in sentences[-2:])
    if (
        (counts or _COUNT.search(plain))
        and plain.count("?") <= 1
        and (_ANY_NUMBER.search(plain) or _HAVE.search(sentences[-1]))
    ):
        return Kind.OPEN if _SAYS_HOW.search(plain) else Kind.NUMBER
    if sentences and _IS_IT.fullmatch(sentences[-1].rpartition(": ")[2]) and not _NOT_PLAIN.search(plain):
        return Kind.YES_NO
    return Kind.OPEN


def _ends(text: str) -> str:
    half = LOOKED_AT // 2
    return text if len(text) <= LOOKED_AT else f"{text[:half]}\n{text[-half:]}"


def _close(text: str) -> str:
    """Without empty lines, and with one blank between words."""
    return "\n".join(" ".join(words) for words in map(str.split, text.splitlines()) if words)


def _offered(text: str) -> tuple[str, ...]:
    """The letters that a text offers, from A on; none unless there are two."""
    found = {one or other for one, other in _OPTION_LINE.findall(text)} | set(_OPTION_INLINE.findall(text))
    letters = []
    for place in range(26):
        letter = chr(ord("A") + place)
        if letter not in found:
            break
        letters.append(letter)
    return tuple(letters) if len(letters) > 1 else ()


def _offers(text: str, plain: str, wants_text: bool) -> bool:
    """Whether it is a choice among letters, and no outline: options stand in brackets on lines of their own, or it says to choose."""
    if not _offered(text):
        return False
    if _OPTIONS_SAID.search(plain):
        return True
    lines = _OPTION_LINE.findall(text)
    bracketed = {one for one, _ in lines if one}
    alone = {one or other for one, other in lines}
    if wants_text:
        return False
    if {"A", "B"} <= bracketed or _CHOOSE.search(plain):
        return True
    return {"A", "B"} <= alone and ("?" in text or "？" in text)


def _wants_code(plain: str) -> bool:
    for found in _CODE_ASKED.finditer(plain):
        if found["noun"] == "function" and found["what"].startswith(("a ", "the following ")):
            return True
        near = plain[found.start() : found.end() + 200]
        if _IN_LANGUAGE.search(near) or _COMPUTES.search(near):
            return True
    return False


def _wants_json(sentence: str) -> bool:
    return bool(_JSON_ASKED.search(sentence) and _GIVES.search(sentence) and not _WONDERS.match(sentence))


def _mostly_latin(text: str) -> bool:
    letters = [sign for sign in text if sign.isalpha()]
    return 2 * sum(sign < "ɐ" for sign in letters) >= len(letters)


def _is_sum(sentence: str) -> bool:
    """A sum and nothing else, such as "17 * (3 + 4) =": a date, a range or a score without blanks is none."""
    if len(sentence) > _LONG:
        return False
    body = _SUM_LEAD.sub("", sentence, count=1).rstrip(" ?.!")
    asks = body.endswith("=")
    body = body.rstrip("= ")
    return bool(_SUM.fullmatch(body) and (_ADDS.search(body) or (asks and any(map(str.isdigit, body)))))


# ---- what an answer says -----------------------------------------------------------------------------------

_MARKED = re.compile(r"\banswer[*_\"”']{0,3} ?(?:is\b ?[:=]?|[:=])|####|\\boxed\{", re.IGNORECASE)
_LETTER_NAMED = re.compile(
    r"\b(?:(?:[Oo]ption|[Cc]hoice)(?: is|:)?|[Aa]nswer(?: is|:)?(?! [AI] [a-z])) \(?([A-Z])(?![\w'’])"
    r"|\(([A-Z])\)|\*\*\(?([A-Z])(?:[).:][^*\n]{0,80})?\*\*"
)
_LETTER_FIRST = re.compile(r"\(?([A-Z])(?:[).:]|\W*$)", re.MULTILINE)
_LETTER_MARKED = re.compile(r"\(?([A-Z])(?:[).:,]|\W*$)|([B-HJ-Z]) ")
_YES_NO_FIRST = re.compile(
    r"(yes|no|true|false)(?=[^\w ]|$| (?:it|he|she|they|that|this|there|you|i|we|because|since|as)\b)"
)
_YES_NO_SAID = re.compile(r"\b(?<!not )(yes|no|true|false)(?=[^\w '’-]|$)")
_FENCE_LANGUAGE = re.compile(r"[a-zA-Z0-9_+-]{0,20}[ \t]*\r?\n")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPABLE = "\\'\"\n\r"
_AROUND = " \t*_`\"'“”‘’.,;:!)("

_FRACTION = re.compile(r"\\[dt]?frac ?\{ ?(-?\d{1,40}) ?\} ?\{ ?(\d{1,40}) ?\}")
_MINUS = re.compile(r"\b(?:minus|negative) (?=\d)")
_IN_PAIR = re.compile(r"\([^()]{0,200}\)")
_RUN = re.compile(r"(?<![^\W\d_])(?:(?<!\d)-)?\d[\d.,:/^-]*")
_PLAIN_NUMBER = re.compile(r"(-?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?")
_RATIO = re.compile(r"(-?\d+)/(\d+)")
_JOINS = re.compile(
    r" ?(?:[-+*/×÷^]|,|\b(?:to|and|or|x)\b)? ?-?\d|[eE][-+]?\d| (?:hundred|thousand|million|billion|trillion)\b"
)
_JOINED = re.compile(r"\d ?(?:[-+*/×÷^]|,|\b(?:to|and|or|x)\b)? ?$")


def extract(kind: Kind, answer: str, truncated: bool = False, question: str = "") -> str | None:
    """What an answer says, normalised so that the same is written the same; None where nothing is found.

    An answer that was cut off counts only by what it marks as its result. Of letters only those count that `question` offers, if it
    offers some.
    """
    if kind is Kind.OPEN:
        return None
    if kind in (Kind.JSON, Kind.CODE):
        read = _json if kind is Kind.JSON else _code
        return read(answer) if len(answer) <= LOOKED_AT_WHOLE else None
    text = _close(answer[-LOOKED_AT:])
    marked = _marked(text)
    if truncated and marked is None:
        return None
    match kind:
        case Kind.NUMBER:
            return _number(text, marked, truncated)
        case Kind.LETTER:
            return _letter(text, marked, _offered(_close(_ends(question))))
        case Kind.YES_NO:
            return _yes_no(text, marked)
        case _:
            return _short(text, marked, truncated, question)


def _marked(text: str) -> str | None:
    """The rest of the line behind the last mark of a result ("Answer: 3", "#### 3", `\\boxed{3}`), where it says something."""
    for found in reversed(list(_MARKED.finditer(text))):
        line = text[found.end() : found.end() + _MARK_LINE].lstrip("*_ ").partition("\n")[0]
        line = _to_brace(line) if found[0].startswith("\\boxed") else line
        if line.strip(_AROUND):
            return line.strip()
    return None


def _to_brace(line: str) -> str:
    """Up to the brace that closes one opened before it."""
    depth = 1
    for place, sign in enumerate(line):
        depth += (sign == "{") - (sign == "}")
        if not depth:
            return line[:place]
    return line


def _number(text: str, marked: str | None, truncated: bool) -> str | None:
    """The first number behind a mark, or behind its last equals sign; else the last number of the last line that has one.

    None where that number is one of a range, a list or a sum without its result: nobody can say which one is meant.
    """
    if marked is not None:
        line = _digits_plain(marked)
        line = line.rpartition("=")[2] if _RUN.search(line.rpartition("=")[2]) else line
        first = _RUN.search(line)
        if first:
            cut = truncated and first.end() == len(line) and text.endswith(marked)
            return None if cut else _value(line, first)
        if truncated:
            return None
    for line in reversed(text.split("\n")):
        line = _digits_plain(line)
        found = list(_RUN.finditer(line))
        if found:
            return _value(line, found[-1])
    return None


def _digits_plain(line: str) -> str:
    """Without signs of money and of setting, and without what stands in brackets unless all numbers do; fractions as 3/4."""
    line = _MINUS.sub("-", _FRACTION.sub(r" \1/\2", line))
    for sign, plain in (
        ("−", "-"),
        ("–", "-"),
        ("**", ""),
        ("\\$", ""),
        ("$", ""),
        ("€", ""),
        ("£", ""),
        ("{,}", ","),
        ("\\!", ""),
    ):
        line = line.replace(sign, plain)
    line = line.replace("\\times", "×").replace("\\cdot", "×")
    outside = _IN_PAIR.sub(" ", line)
    return outside if _RUN.search(outside) else line


def _value(line: str, found: re.Match[str]) -> str | None:
    """A number in its plainest form, exactly: 1,200.50 is 1200.5, 3/2 is 1.5, 1/3 stays; None where its run is anything else."""
    run = found[0].rstrip(".,:-/^")
    end = found.start() + len(run)
    around = line[end : end + 50]
    mixed = re.match(r" (\d{1,9})/(\d{1,9})(?![\d/])", around)
    joined = _JOINS.match(around) if not mixed else None
    if joined or _JOINED.search(line[max(0, found.start() - 50) : found.start()]):
        return None
    if sum(map(str.isdigit, run)) > _DIGITS:
        return None
    number, ratio = _PLAIN_NUMBER.fullmatch(run), _RATIO.fullmatch(run)
    if number:
        value = Fraction(f"{number[1]}{number[2].replace(',', '')}.{number[3] or 0}")
    elif ratio and int(ratio[2]):
        value = Fraction(int(ratio[1]), int(ratio[2]))
    else:
        return None
    if mixed:
        if value.denominator != 1 or not int(mixed[2]):
            return None
        value += Fraction(int(mixed[1]), int(mixed[2])) * (-1 if run.startswith("-") else 1)
    return _written(value)


def _written(value: Fraction) -> str:
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole = digits[: len(digits) - places]
    return ("-" if value < 0 else "") + (f"{whole}.{digits[-places:]}" if places else whole)


def _letter(text: str, marked: str | None, offered: tuple[str, ...]) -> str | None:
    """The letter behind a mark; else one that leads the answer; else the only one that its last line names, or the whole of it."""

    def counts(letter: str | None) -> bool:
        return letter is not None and (letter in offered if offered else letter != "I")

    if marked is not None:
        named = {letter for letter in _named(marked) if counts(letter)}
        first = _LETTER_MARKED.match(marked.lstrip(_AROUND))
        letter = (first[1] or first[2]) if first else None
        if counts(letter):
            return letter
        if named:
            return named.pop() if len(named) == 1 else None
    leading = _LETTER_FIRST.match(text.lstrip(_AROUND))
    if leading and counts(leading[1]):
        return leading[1]
    last = text.rpartition("\n")[2]
    alone = _LETTER_FIRST.fullmatch(last.strip(_AROUND[:-2]))
    if alone and counts(alone[1]):
        return alone[1]
    for place in (last, text):
        letters = {letter for letter in _named(place) if counts(letter)}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _named(text: str) -> list[str]:
    return [one or other or third for one, other, third in _LETTER_NAMED.findall(text)]


def _yes_no(text: str, marked: str | None) -> str | None:
    for place in (marked, text) if marked is not None else (text,):
        first = _YES_NO_FIRST.match(place.casefold().lstrip(_AROUND))
        if first:
            return _PLAIN[first[1]]
    said = {_PLAIN[word] for word in _YES_NO_SAID.findall(text.rpartition("\n")[2].casefold())}
    return said.pop() if len(said) == 1 else None


_PLAIN = {"yes": "yes", "no": "no", "true": "yes", "false": "no"}


def _blocks(text: str) -> list[str]:
    """The blocks of code between fences that are closed."""
    parts = text.split("```")
    blocks = []
    for part in parts[1 : len(parts) - 1 : 2]:
        language = _FENCE_LANGUAGE.match(part)
        if language:
            blocks.append(part[language.end() :])
    return blocks


def _json(text: str) -> str | None:
    """The object or array in the last block of code, else the first one in the text, in its canonical form."""
    for body in (*_blocks(text)[-1:], text):
        start = -1
        for _ in range(_JSON_STARTS):
            places = [at for at in (body.find("{", start + 1), body.find("[", start + 1)) if at >= 0]
            if not places:
                break
            start = min(places)
            try:
                value, _ = _DECODER.raw_decode(body, start)
                return json.dumps(
                    value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
                )
            except (ValueError, RecursionError):
                continue
    return None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _code(text: str) -> str | None:
    """The code blocks as a tree, if they are Python; else without comments on lines of their own, blank lines and spaces at line ends."""
    lines = [line.rstrip() for block in _blocks(text) for line in block.splitlines()]
    kept = [line for line in lines if line and not line.lstrip().startswith(("#", "//"))]
    if not kept:
        return None
    return _tree("\n".join(lines)) or "\n".join(kept)


def _tree(code: str) -> str | None:
    """Python as `ast.dump` writes it, without docstrings; None where it is none, or larger or deeper than is safe."""
    if len(code) > TREE_CHARACTERS or _deepest(code) > TREE_BRACKETS:
        return None
    # What a backslash means is the same in the same letters; about some of them the parser would warn on the terminal.
    plain = _ESCAPE.sub(lambda found: found[0] if found[1] in _ESCAPABLE else f"\\\\{found[1]}", code)
    try:
        tree = ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for level, node in _nodes(tree):
        if level > TREE_DEPTH:
            return None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
    return ast.dump(tree) if tree.body else None


def _deepest(code: str) -> int:
    """How many brackets stand open at a time at most, those in strings with them."""
    depth = most = 0
    for sign in code:
        depth += (sign in "([{") - (sign in ")]}")
        most = max(most, depth)
    return most


def _nodes(tree: ast.AST) -> Iterator[tuple[int, ast.AST]]:
    """Each node and its level, those above first, without a call for each level."""
    left = [(0, tree)]
    while left:
        level, node = left.pop()
        yield level, node
        left += [(level + 1, child) for child in ast.iter_child_nodes(node)]


def _short(text: str, marked: str | None, truncated: bool, question: str) -> str | None:
    """What is marked; or the whole answer, if it is a few words on one line and the question wants no more than that."""
    if marked is None:
        alone = "\n" not in text and len(text.split()) <= _FEW
        wanted = alone and _SHORT_FORM.search(_close(_ends(question)).casefold())
        marked = text if wanted else ""
    elif truncated and text.endswith(marked):
        return None
    words = " ".join(marked.casefold().strip(_AROUND).replace(",", " ").split())
    return words if words and len(words) <= MOST_SHORT else None
