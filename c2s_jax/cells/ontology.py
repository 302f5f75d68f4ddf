"""Cell type names as terms of the Cell Ontology, and how close two of them are.

Names in data sets differ in spelling ("NK", "NK cells", "natural killer cell") and in depth ("T cell" for a
"CD4-positive, alpha-beta T cell"). A name is looked up among labels and synonyms, written alike; then by its words in
any order; then by the most specific term all of whose words it has.

The reader of OBO files below keeps the few tags that this takes. Whole parsers (pronto, obonet) bring an ontology model
or a graph library for what is one loop over "tag: value" lines.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from .errors import CellDataError

How = Literal["id", "label", "synonym", "words", "broader"]
Relation = Literal["same", "ancestor", "descendant", "other"]

# How the field shortens names; each stands for what labels of the ontology spell out.
SHORT = {
    "nk": "natural killer",
    "dc": "dendritic",
    "pdc": "plasmacytoid dendritic",
    "cdc": "conventional dendritic",
    "treg": "regulatory t",
    "reg": "regulatory",
    "mono": "monocyte",
    "hsc": "hematopoietic stem",
    "hspc": "hematopoietic stem",
    "ilc": "innate lymphoid",
    "rbc": "erythrocyte",
    "ec": "endothelial",
    "mait": "mucosal invariant t",
    "tcm": "central memory t",
    "tem": "effector memory t",
}
_GREEK = str.maketrans({"α": " alpha ", "β": " beta ", "γ": " gamma ", "δ": " delta "})
_EMPTY_WORDS = frozenset(("cell", "the", "of", "a", "an"))
_ID = re.compile(r"CL[:_]\d{7}")


@dataclass(frozen=True)
class Term:
    """One term: its id ("CL:0000084"), label, synonyms, and the ids of its direct parents."""

    id: str
    label: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """The term that a name stands for, and how it was found; ``broader`` terms are less specific than the name."""

    id: str
    label: str
    how: How


@dataclass(frozen=True)
class CellOntology:
    """The terms of an ontology by id, and every term's ancestors.

    Read one with `CellOntology.load`.
    """

    terms: dict[str, Term]
    ancestors: Mapping[str, frozenset[str]]
    replaced: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> "CellOntology":
        """Read ``cl.obo``, or the JSON of the cellxgene-ontology-guide (labels and ancestors), also gzipped.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        CellDataError
            If it holds no terms of the Cell Ontology.
        """
        path = Path(path)
        content = path.read_bytes()
        try:
            text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
            found = _from_json(json.loads(text)) if text.lstrip()[:1] == "{" else _from_obo(text)
        except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CellDataError(f"{path} is no ontology that can be read (OBO, or JSON by id): {error!r}") from None
        if not found.terms:
            raise CellDataError(f"{path} holds no terms with ids such as CL:0000084; give the Cell Ontology (cl.obo)")
        return found

    def match(self, name: str) -> Match | None:
        """The term that a name stands for; None where no term fits."""
        if found := _ID.fullmatch(name.strip()):
            key = found.group().replace("_", ":")
            term = self.terms.get(self.replaced.get(key, key))
            return Match(term.id, term.label, "id") if term else None
        written = _written(name)
        if written in self._labels:
            return self._found(self._labels[written], "label")
        if written in self._synonyms:
            return self._found(self._synonyms[written], "synonym")
        words = _words(name)
        if words in self._by_words:
            return self._found(self._by_words[words], "words")
        parts = [self._by_words[p] for p in _subsets(words, self._first_words) if p in self._by_words]
        if not parts:
            return None
        longest = max(parts, key=lambda key: (len(_words(self.terms[key].label)), len(self.ancestors[key]), key))
        return self._found(longest, "broader")

    def relation(self, found: str, wanted: str) -> Relation:
        """What a term is to another: the same, its ancestor (less specific), its descendant, or none of these."""
        if found == wanted:
            return "same"
        if found in self.ancestors.get(wanted, ()):
            return "ancestor"
        return "descendant" if wanted in self.ancestors.get(found, ()) else "other"

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
        """Agreement of two columns of names.

        Parameters
        ----------
        found, wanted
            Names or ids of N cells, e.g. a model's answers and the true types.

        Returns
        -------
        Shares of the N: ``exact`` (one term, or one spelling where there is no term), ``lineage`` (``exact``, or one an
        ancestor of the other; the root of the ontology is no lineage), ``unmatched`` (answers that are no term).
        """
        if len(found) != len(wanted):
            raise ValueError(f"{len(found)} answers for {len(wanted)} cells")
        pairs = [(str(a), str(b)) for a, b in zip(found, wanted)]
        verdict = {pair: self._verdict(*pair) for pair in set(pairs)}
        n = max(len(pairs), 1)
        exact, lineage, unmatched = (sum(verdict[pair][i] for pair in pairs) / n for i in range(3))
        return {"exact": exact, "lineage": lineage, "unmatched": unmatched}

    def _verdict(self, found: str, wanted: str) -> tuple[bool, bool, bool]:
        a, b = self.match(found), self.match(wanted)
        if a is None or b is None:
            same = _written(found) == _written(wanted)
            return same, same, a is None
        relation = self.relation(a.id, b.id)
        # two names of which each is narrower than the same term need not be one type
        same = relation == "same" and ("broader" not in (a.how, b.how) or _words(found) == _words(wanted))
        rooted = not self.ancestors[a.id] or not self.ancestors[b.id]
        return same, same or (relation != "other" and not rooted), False

    def _found(self, key: str, how: How) -> Match:
        return Match(key, self.terms[key].label, how)

    @cached_property
    def _labels(self) -> dict[str, str]:
        return {_written(term.label): key for key, term in reversed(self.terms.items())}

    @cached_property
    def _synonyms(self) -> dict[str, str]:
        return {_written(s): key for key, term in reversed(self.terms.items()) for s in term.synonyms}

    @cached_property
    def _by_words(self) -> dict[frozenset[str], str]:
        both = [(text, key) for key, t in reversed(self.terms.items()) for text in t.synonyms]
        both += [(term.label, key) for key, term in reversed(self.terms.items())]
        return {words: key for text, key in both if (words := _words(text))}

    @cached_property
    def _first_words(self) -> frozenset[str]:
        return frozenset(word for words in self._by_words for word in words)


def _subsets(words: frozenset[str], known: frozenset[str]) -> Iterator[frozenset[str]]:
    """Sets of some of the words, of those that the ontology has; a name has few."""
    used = sorted(words & known)[:10]
    for bits in range(1, 1 << len(used)):
        yield frozenset(word for i, word in enumerate(used) if bits >> i & 1)


def _written(name: str) -> str:
    """A name in one spelling: case, hyphens, commas, plurals, "+" and abbreviations do not matter."""
    text = name.strip().removesuffix(".").translate(_GREEK).lower()
    text = re.sub(r"(?<=\w)\+", " positive ", text)
    text = re.sub(r"(?<=\w)-(?=\s|$|/|,)", " negative ", text)
    words = re.sub(r"[^\w]+", " ", text).replace("_", " ").split()
    return " ".join(SHORT.get(word, word) for word in map(_singular, words))


def _singular(word: str) -> str:
    if len(word) < 4 and word not in ("nks", "dcs"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _words(name: str) -> frozenset[str]:
    return frozenset(_written(name).split()) - _EMPTY_WORDS


def _from_json(content: Mapping[str, Mapping]) -> CellOntology:
    terms: dict[str, Term] = {}
    ancestors: dict[str, frozenset[str]] = {}
    for key, entry in content.items():
        if _ID.fullmatch(key) and not entry.get("deprecated"):
            above = entry["ancestors"]
            direct = tuple(k for k, steps in above.items() if steps == 1) if isinstance(above, Mapping) else ()
            terms[key] = Term(key, entry["label"], tuple(entry.get("synonyms", ())), direct)
            ancestors[key] = frozenset(above)
    return CellOntology(terms, ancestors, {})


def _from_obo(text: str) -> CellOntology:
    terms: dict[str, Term] = {}
    replaced: dict[str, str] = {}
    for stanza in text.split("\n[")[1:]:
        if not stanza.startswith("Term]"):
            continue
        tags: dict[str, list[str]] = {}
        for line in stanza.split("\n")[1:]:
            tag, _, value = line.partition(": ")
            tags.setdefault(tag, []).append(value.strip())
        key = tags["id"][0]
        if not _ID.fullmatch(key):
            continue
        replaced |= dict.fromkeys(tags.get("alt_id", ()), key)
        if tags.get("is_obsolete") == ["true"]:
            if newer := tags.get("replaced_by"):
                replaced[key] = newer[0].split(" ")[0]
            continue
        exact = [re.match(r'"((?:[^"\\]|\\.)*)" EXACT', value) for value in tags.get("synonym", ())]
        synonyms = tuple(found.group(1).replace('\\"', '"') for found in exact if found)
        parents = tuple(value.split(" ")[0] for value in tags.get("is_a", ()) if value.startswith("CL:"))
        terms[key] = Term(key, tags["name"][0], synonyms, parents)
    return CellOntology(terms, _closure(terms), replaced)


def _closure(terms: Mapping[str, Term]) -> dict[str, frozenset[str]]:
    """All ancestors of every term."""
    done: dict[str, frozenset[str]] = {}
    for start in terms:
        stack = [start]
        while stack:
            key = stack[-1]
            waiting = [p for p in terms[key].parents if p in terms and p not in done and p not in stack]
            if waiting:
                stack += waiting
                continue
            direct = [p for p in terms[key].parents if p in terms]
            done[key] = frozenset(direct).union(*(done.get(p, frozenset()) for p in direct))
            stack.pop()
    return done
