"""CLIP's tokenizer from its list of merges.

The list (OpenAI's CLIP, MIT licence) has 1.4 MB and comes with every host: the packages `clip` and `open_clip` hold it,
Forge's kin have it among their own configurations, and a Hugging Face folder brings its own, so it is not shipped here.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_latent_upscale.errors import ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as TokenizersTokenizer

__all__ = ["ClipTokenizer", "byte_pairs", "find_merges"]

_LISTS = (
    ("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    ("clip", "bpe_simple_vocab_16e6.txt.gz"),
    ("backend", "huggingface/stabilityai/stable-diffusion-xl-base-1.0/tokenizer/merges.txt"),
)
"""Packages that hold the list, and where; `backend` is a folder of Forge's and its kin, of which Neo has neither other.
"""
_LENGTH = 77
_MERGES = 49152 - 256 - 2
"""CLIP uses only this first part of the list."""
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


@dataclass(frozen=True)
class ClipTokenizer:
    """Converts texts to CLIP's 77 token ids."""

    backend: TokenizersTokenizer
    """Splits a text into tokens, without start, end and padding."""
    start: int
    end: int
    padding: int = 0
    """OpenCLIP pads with 0 (the token "!"), and so does this model."""

    @classmethod
    def from_merges(cls, merges: Sequence[tuple[str, str]], vocabulary: dict[str, int] | None = None) -> ClipTokenizer:
        """Tokenizer of byte pair merges in order of rank; the vocabulary follows from them where it is not given."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        vocabulary = _vocabulary(merges) if vocabulary is None else vocabulary
        backend = Tokenizer(
            models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix="</w>", unk_token=_END)
        )
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        return cls(backend, vocabulary[_START], vocabulary[_END])

    @classmethod
    def from_file(cls, path: Path) -> ClipTokenizer:
        """Tokenizer of a merges.txt, gzipped or not; a vocab.json beside it is used."""
        vocabulary = path.with_name("vocab.json")
        known = json.loads(vocabulary.read_text("utf-8")) if vocabulary.is_file() else None
        return cls.from_merges(_read_merges(path), known)

    def encode(self, text: str) -> tuple[list[int], int]:
        """The 77 token ids, and the number of tokens that did not fit."""
        tokens: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        kept = tokens[: _LENGTH - 2]
        numbers = [self.start, *kept, self.end]
        return numbers + [self.padding] * (_LENGTH - len(numbers)), len(tokens) - len(kept)


def byte_pairs(path: Path) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """The merges of a merges.txt, gzipped or not, in order of rank, and CLIP's numbers of the tokens."""
    merges = _read_merges(path)
    return merges, _vocabulary(merges)


def _read_merges(path: Path) -> list[tuple[str, str]]:
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes: printable ones for themselves, then the letters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """CLIP's numbers: letters, letters that end a word, merges by rank, start and end."""
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), _START, _END]
    return {token: number for number, token in enumerate(tokens)}


def find_merges(model: Path) -> Path:
    """The list of merges for a single file: a merges.txt beside it, else that of an installed package or of the host.

    The packages are only located, not imported.

    Raises:
        ModelFileError: there is none.
    """
    beside = model.with_name("merges.txt")
    if beside.is_file():
        return beside
    for package, file in _LISTS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / file).is_file():
                return Path(folder) / file
    raise ModelFileError(
        f"{model.name} holds no tokenizer, and neither of the packages open_clip and clip is installed: "
        f"install open_clip_torch, or put CLIP's merges.txt next to the file."
    )
