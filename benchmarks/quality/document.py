"""The document: an author's sentences around tables that are made from the figures.

A sentence that states a finding is a function in `FINDINGS` that says, too, whether the figures bear it out. Where they
do not (another model, other pictures), the document is not written, and the sentences to look at are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.quality.evidence import Evidence
from benchmarks.quality.grid import CODED, PLAIN
from benchmarks.quality.pictures import KINDS, PHOTOGRAPHS
from lib_latent_upscale.comparison.variants import HOST_DEFAULT, HOST_PIXELS
from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.settings import STARTS

__all__ = ["FINDINGS", "Claim", "Finding", "cell", "check_findings", "document", "table"]

TEMPLATE = Path(__file__).with_name("template.md")
"""What stays the same whatever the figures are."""
HOSTS = {"WebUI, latent upscale": HOST_DEFAULT.method, "WebUI, Just resize": HOST_PIXELS.method}

LOW = 0.3
"""The highest denoising strength that is called low."""
BEARABLE = 0.01
"""GMSD that is called next to nothing: what the worst pictures here have is 0.3."""
OUTSIDE = "linear_quadratic"
"""Starts from nearly pure noise at any denoising strength."""


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


def strengths_table(evidence: Evidence) -> str:
    """Up to which denoising strength each method loses next to nothing; both kinds together."""
    grid = evidence.grid

    def shown(method: str, factor: float) -> str:
        values = [both(evidence, cell(factor, strength), method, "gmsd") for strength in grid.strengths]
        return f"{bearable(grid.strengths, values):.2f}"

    rows = [[method, *(shown(method, factor) for factor in grid.factors)] for method in grid.methods]
    return table(["", *(f"{factor:g} times" for factor in grid.factors)], rows)


def bearable(strengths: Sequence[float], values: Sequence[float]) -> float:
    """The strength, after that of the lowest of the values, from which on they are `BEARABLE` above it.

    Between the given strengths along straight lines; the highest of them if the values stay below.
    """
    best = values.index(min(values))
    limit = values[best] + BEARABLE
    for index in range(best, len(values) - 1):
        low, high = values[index : index + 2]
        if high > limit:
            share = (limit - low) / (high - low)
            return strengths[index] + share * (strengths[index + 1] - strengths[index])
    return strengths[-1]


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


def _each(evidence: Evidence) -> Iterator[tuple[str, float, float]]:
    """Kind, factor and strength of all that ran with every method."""
    return product(KINDS, evidence.grid.factors, evidence.grid.strengths)


def _range(values: Iterable[float], digits: int) -> str:
    found = sorted(values)
    low, high = (round(value, digits) + 0.0 for value in (found[0], found[-1]))
    return f"{low:.{digits}f} to {high:.{digits}f}"


def interpolations_lose(evidence: Evidence) -> Claim:
    names = [name for name in evidence.grid.methods if name in INTERPOLATIONS]

    def ahead(kind: str, factor: float, strength: float) -> float:
        at = cell(factor, strength)
        return evidence.mean(kind, at, "learned", "psnr") - max(evidence.mean(kind, at, n, "psnr") for n in names)

    low = [ahead(*one) for one in _each(evidence) if one[2] <= LOW]
    rest = [ahead(*one) for one in _each(evidence) if one[2] > LOW]
    return Claim(
        "**Latents of a resized picture are a better start than interpolated ones.** *learned* is nearer to the "
        f"original than the best interpolation by {_range(low, 1)} dB at denoising strengths up to {LOW:g}, and by "
        f"{_range(rest, 1)} dB above.",
        min(low) > 0 and min(rest) > -0.15,
    )


def beside_the_latent_upscale(evidence: Evidence) -> Claim:
    host, gains, texts = HOSTS["WebUI, latent upscale"], [], []
    for kind in KINDS:
        found = {
            s: [
                evidence.gain(kind, (cell(f, s), "learned"), (cell(f, s, host=True), host), "psnr")
                for f in evidence.grid.factors
            ]
            for s in evidence.grid.strengths
        }
        gains += [gain for one in found.values() for gain in one]
        texts.append(
            f"{kind} " + ", ".join(f"{_range([g.value for g in one], 1)} dB at {s:g}" for s, one in found.items())
        )
    clear = sum(gain.clear and gain.value > 0 for gain in gains)
    return Claim(
        f"***learned* compared with the WebUI's latent upscale**, over all factors: {'; '.join(texts)}. Clear (95 %, "
        f"pictures in pairs) in {clear} of {len(gains)} comparisons.",
        all(gain.value > 0 for gain in gains) and clear > len(gains) / 2,
    )


def beside_just_resize(evidence: Evidence) -> Claim:
    host = HOSTS["WebUI, Just resize"]
    crisper, nearer = {}, []
    for kind, factor, strength in _each(evidence):
        if strength <= LOW:
            ours, theirs = (kind, cell(factor, strength), "learned"), (kind, cell(factor, strength, host=True), host)
            crisper[kind, factor, strength] = evidence.mean(*ours, "energy") / evidence.mean(*theirs, "energy")
            nearer.append(evidence.mean(*ours, "psnr") - evidence.mean(*theirs, "psnr"))
    return Claim(
        f"***learned* compared with the WebUI's Just resize**, at strengths up to {LOW:g}: "
        f"{_range(crisper.values(), 1)} times its gradient energy, at {_range(nearer, 1)} dB.",
        min(crisper.values()) > 1,
    )


def noise_decides(evidence: Evidence) -> Claim:
    grid = evidence.grid
    names = [name for name in grid.schedules if name != OUTSIDE]

    def psnr(schedule: str, start: str) -> float:
        return both(evidence, f"{grid.factors[1]:g}x {grid.middle:g} {schedule} {start}", "learned", "psnr")

    own, matched = ([psnr(name, start) for name in names] for start in ("continuous", "matched"))
    sigmas = [evidence.sigmas[f"{grid.factors[1]:g}x {grid.middle:g} {name} continuous"] for name in names]
    order = float(spearmanr(sigmas, own).statistic)
    return Claim(
        f"**What matters about a schedule is the noise it starts from.** At {grid.middle:g} *learned* differs by "
        f"{max(own) - min(own):.1f} dB between schedules with their own starts, in the order of their first "
        f"sigmas (rank correlation {order:.2f}), and by {max(matched) - min(matched):.1f} dB from matched noise "
        f"(without {OUTSIDE}, made for flow models, which starts from nearly pure noise).",
        order < -0.8 and max(matched) - min(matched) < (max(own) - min(own)) / 3,
    )


def less_is_nearer(evidence: Evidence) -> Claim:
    found = [
        [evidence.mean(kind, cell(factor, s), "learned", "psnr") for s in evidence.grid.strengths]
        for kind, factor in product(KINDS, evidence.grid.factors)
    ]
    plain = [evidence.mean(kind, f"{f:g}x", PLAIN, "psnr") for kind, f in product(KINDS, evidence.grid.factors)]
    return Claim(
        "**With this model, less noise is nearer to the original, and no model is nearest**: from the lowest to the "
        f"highest strength *learned* loses {_range([one[0] - one[-1] for one in found], 1)} dB, and a plain resize of "
        "the picture is nearest of all, but softer. This model cannot add what real models add.",
        all(one == sorted(one, reverse=True) for one in found)
        and all(p > one[0] for p, one in zip(plain, found, strict=True)),
    )


FINDINGS: tuple[Finding, ...] = (
    interpolations_lose,
    beside_the_latent_upscale,
    beside_just_resize,
    noise_decides,
    less_is_nearer,
)


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
        bearable=BEARABLE,
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
