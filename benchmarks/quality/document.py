"""The document: an author's sentences around tables that are made from the figures.

A sentence that states a finding is a function in `FINDINGS` that says, too, whether the figures bear it out. Where they
do not (another model, other pictures), the document is not written, and the sentences to look at are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.evidence import Evidence, Mean
from benchmarks.quality.grid import CODED, PLAIN
from benchmarks.quality.pictures import KINDS, PHOTOGRAPHS
from lib_latent_upscale.comparison.variants import HOST_DEFAULT, HOST_PIXELS
from lib_latent_upscale.settings import STARTS

__all__ = ["FINDINGS", "Claim", "Finding", "cell", "check_findings", "document", "table"]

TEMPLATE = Path(__file__).with_name("template.md")
"""What stays the same whatever the figures are."""
HOSTS = {"WebUI, latent upscale": HOST_DEFAULT.method, "WebUI, Just resize": HOST_PIXELS.method}


@dataclass(frozen=True)
class Claim:
    """A sentence about the figures."""

    text: str
    holds: bool
    """Whether the figures bear it out."""


Finding = Callable[[Evidence], Claim]


def cell(factor: float, strength: float, *, host: bool = False) -> str:
    """The name of a cell with our schedule, or with the host's own."""
    return f"{factor:g}x {strength:g} {'automatic host' if host else 'simple schedule'}"


# Tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row of {len(row)} cells under a head of {len(head)}: {row}")
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods_table(evidence: Evidence, kind: str, factor: float) -> str:
    """PSNR and gradient energy of every method at every strength, the best PSNR bold."""
    strengths = evidence.grid.strengths
    ways = {name: (method, True) for name, method in HOSTS.items()} | {
        name: (name, False) for name in evidence.grid.methods
    }
    best = {
        strength: max(
            evidence.mean(kind, cell(factor, strength, host=host), method, "psnr") for method, host in ways.values()
        )
        for strength in strengths
    }

    def shown(method: str, strength: float, *, host: bool) -> str:
        found = (kind, cell(factor, strength, host=host), method)
        psnr, energy = evidence.mean(*found, "psnr"), evidence.mean(*found, "energy")
        mark = "**" if psnr == best[strength] else ""
        return f"{mark}{psnr:.1f}{mark}, {energy:.2f}"

    rows = [
        [name, *(shown(method, strength, host=host) for strength in strengths)] for name, (method, host) in ways.items()
    ]
    for name in (PLAIN, CODED):
        psnr, energy = (evidence.mean(kind, f"{factor:g}x", name, figure) for figure in ("psnr", "energy"))
        rows.append([f"*{name}*", f"{psnr:.1f}, {energy:.2f}", *[""] * (len(strengths) - 1)])
    return table(["", *(f"{strength:g}" for strength in strengths)], rows)


def best_strength(evidence: Evidence, kind: str, factor: float, method: str) -> float:
    """The denoising strength at which the edges are nearest to the original's (the lowest GMSD)."""
    return min(evidence.grid.strengths, key=lambda one: evidence.mean(kind, cell(factor, one), method, "gmsd"))


def strengths_table(evidence: Evidence) -> str:
    """`best_strength` of every method, drawings and photographs."""
    factors = evidence.grid.factors
    rows = [
        [
            method,
            *(", ".join(f"{best_strength(evidence, kind, factor, method):g}" for kind in KINDS) for factor in factors),
        ]
        for method in evidence.grid.methods
    ]
    return table(["", *(f"{factor:g} times" for factor in factors)], rows)


def schedules_table(evidence: Evidence, method: str) -> str:
    """PSNR and gradient energy of every schedule from every starting noise; both kinds together."""
    grid = evidence.grid
    rows = []
    for schedule in grid.schedules:
        row = [schedule]
        for start in STARTS:
            name = f"{grid.factors[1]:g}x {grid.middle:g} {schedule} {start}"
            psnr, energy = (both(evidence, name, method, figure) for figure in ("psnr", "energy"))
            row.append(f"{evidence.sigmas[name]:.2f}: {psnr:.1f}, {energy:.2f}")
        rows.append(row)
    return table(["", *STARTS], rows)


def both(evidence: Evidence, name: str, method: str, figure: str) -> float:
    """The mean of both kinds' means."""
    return sum(evidence.mean(kind, name, method, figure) for kind in KINDS) / len(KINDS)


# Findings


def check_findings(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """Raise ValueError that quotes the findings that the figures do not bear out."""
    claims = [finding(evidence) for finding in findings]
    wrong = [claim.text for claim in claims if not claim.holds]
    if wrong:
        raise ValueError("no longer so; look at the figures and write FINDINGS anew:\n" + "\n".join(wrong))


def _gains(evidence: Evidence, kind: str, method: str, figure: str, *, over: str) -> list[list[Mean]]:
    """By factor and strength: our method beside one of the host's two."""
    return [
        [
            evidence.gain(kind, (cell(f, s), method), (cell(f, s, host=True), HOSTS[over]), figure)
            for s in evidence.grid.strengths
        ]
        for f in evidence.grid.factors
    ]


FINDINGS: tuple[Finding, ...] = ()


# The text


def document(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """The whole document; `check_findings` says whether it is true."""
    grid = evidence.grid
    parts = []
    for kind in KINDS:
        for factor in grid.factors:
            parts += [f"### {kind.capitalize()}, {factor:g} times", methods_table(evidence, kind, factor)]
    schedules = [f"### {method}\n\n{schedules_table(evidence, method)}" for method in grid.scheduled]
    return TEMPLATE.read_text(encoding="utf-8").format(
        findings="\n".join(f"- {finding(evidence).text}" for finding in findings),
        methods="\n\n".join(parts),
        strengths=strengths_table(evidence),
        schedules="\n\n".join(schedules),
        photographs=", ".join(f"`{name}` ({licence})" for name, licence in list(PHOTOGRAPHS.items())[: grid.count]),
        count=grid.count,
        size=grid.size,
        steps=grid.steps,
        middle=f"{grid.middle:g}",
        factor=f"{grid.factors[1]:g}",
        results=len(evidence.rows),
        weights=evidence.weights[:12],
        versions=", ".join(f"{name} {number}" for name, number in evidence.versions.items()),
    )
