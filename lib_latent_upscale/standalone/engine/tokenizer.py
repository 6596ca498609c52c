"""CLIP's tokenizer for checkpoints in one file, which bring none, without the hub."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from lib_latent_upscale.x4_upscaler.tokenizer import byte_pairs, find_merges

__all__ = ["END_OF_TEXT", "clip_tokenizer"]

END_OF_TEXT = "<|endoftext|>"


def clip_tokenizer(checkpoint: Path, padding: str) -> Any:
    """The CLIPTokenizer of transformers, from the list of merges of the package `clip` (OpenAI's, MIT licence).

    That package comes with k-diffusion. A merges.txt beside the checkpoint is used before it.

    Raises:
        InputError: there is neither.
    """
    from transformers import CLIPTokenizer

    merges, vocabulary = byte_pairs(find_merges(checkpoint))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        return CLIPTokenizer(*files, model_max_length=77, pad_token=padding)
