"""Text conditioning: prompts of any length, in chunks of 75 tokens as the WebUI does it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Conditioning", "TextEncoder", "encode_prompt"]

_log = logging.getLogger(__name__)

_SYNTAX = re.compile(r"\([^()]*:\s*[\d.]+\s*\)|<\w+:[^<>]*>")


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and a text model of transformers, and which of its outputs is used."""

    tokenizer: Any
    model: Any
    penultimate: bool = False
    """Whether the last hidden state but one is used, without the final norm, as in SDXL."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The conditioning of the UNet from one prompt."""

    embeddings: Tensor
    """(1, 77 for each chunk, channels)."""
    pooled: Tensor | None = None
    """(1, channels), of the first chunk; only for SDXL."""


def _chunks(encoder: TextEncoder, text: str) -> list[list[int]]:
    """Token ids with start, end and padding: a list of the tokenizer's length for each chunk, at least one."""
    tokenizer = encoder.tokenizer
    room = tokenizer.model_max_length - 2
    # `verbose` off: the tokenizer would warn that the text is too long for one chunk.
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    parts = [ids[start : start + room] for start in range(0, len(ids), room)] or [[]]
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return [[start, *part, end] + [padding] * (room - len(part)) for part in parts]


def _empty_chunk(encoder: TextEncoder) -> list[int]:
    return _chunks(encoder, "")[0]


def _encode(encoder: TextEncoder, chunks: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    tokens = torch.tensor(chunks, device=encoder.model.device)
    output = encoder.model(tokens, output_hidden_states=encoder.penultimate)
    hidden = output.hidden_states[-2] if encoder.penultimate else output.last_hidden_state
    pooled = getattr(output, "text_embeds", None)
    return hidden.flatten(0, 1)[None], None if pooled is None else pooled[:1]


@torch.no_grad()
def encode_prompt(encoders: Sequence[TextEncoder], text: str) -> Conditioning:
    """Encode a prompt of any length with every text encoder of the model.

    Longer prompts than one chunk are encoded in chunks that are joined, as in the WebUI. Its further syntax, such as
    (word:1.2) or <lora:name:1>, is not interpreted here; a warning says so.
    """
    if _SYNTAX.search(text):
        _log.warning(
            "Weights and networks in prompts, such as (word:1.2) and <lora:name:1>, are plain text here: %s", text
        )
    chunks = [_chunks(encoder, text) for encoder in encoders]
    count = max(len(part) for part in chunks)
    if count > 1:
        _log.info("The prompt is longer than the model's %d tokens: encoded in %d chunks.", len(chunks[0][0]), count)
    padded = [
        part + [_empty_chunk(encoder)] * (count - len(part)) for encoder, part in zip(encoders, chunks, strict=True)
    ]
    outputs = [_encode(encoder, part) for encoder, part in zip(encoders, padded, strict=True)]
    pooled = next((pooled for _, pooled in reversed(outputs) if pooled is not None), None)
    return Conditioning(torch.cat([hidden for hidden, _ in outputs], dim=-1), pooled)
