"""The document: an author's sentences around tables that are made from the figures.

A sentence that states a finding is a function in `FINDINGS` that says, too, whether the figures bear it out. Where they
do not (another model, other photographs), the document is not written, and the sentences to look at are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.quality.evidence import MEASURES, Evidence, Mean, Measure, Variant
from benchmarks.quality.photographs import PHOTOGRAPHS
from lib_latent_upscale.comparison.variants import HOST_DEFAULT

__all__ = ["FINDINGS", "Claim", "Finding", "check_findings", "document", "table", "typical_photograph"]

AGAINST_ORIGINAL = MEASURES[:3]
"""PSNR, SSIM and GMSD."""
OUTSIDE = "linear_quadratic"
"""Made for flow models; it starts from nearly pure noise at any denoising strength, and is left out of plots."""


@dataclass(frozen=True)
class Claim:
    """A sentence about the figures."""

    text: str
    holds: bool
    """Whether the figures bear it out."""


TEMPLATE = Path(__file__).with_name("template.md")
"""What stays the same whatever the figures are."""

Finding = Callable[[Evidence], Claim]


# Tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row of {len(row)} cells under a head of {len(head)}: {row}")
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _heads() -> list[str]:
    return [f"{measure.title} {'↑' if measure.best > 0 else '↓'}" for measure in MEASURES]


def means_table(evidence: Evidence) -> str:
    """What to read the figures beside, and both defaults at each denoising strength."""
    rows = [["plain resize (Lanczos)", *_reference(evidence, "plain")]]
    rows.append(["original through the autoencoder", *_reference(evidence, "coded")])
    rows.append(["nearest-exact, no step", *_means(evidence, Variant(0.0))])
    for strength in evidence.grid.strengths:
        host = Variant.host(strength)
        rows.append([f"**{strength:g}**: WebUI's default ({evidence.steps(host)} steps run)", *_means(evidence, host)])
        rows.append([f"**{strength:g}**: {Variant(strength).name}", *_means(evidence, Variant(strength))])
    return table(["", *_heads()], rows)


def _means(evidence: Evidence, variant: Variant) -> list[str]:
    return [f"{evidence.mean(variant, measure.figure).value:.{measure.digits}f}" for measure in MEASURES]


def _reference(evidence: Evidence, kind: str) -> list[str]:
    return [f"{evidence.reference(kind, measure.figure).value:.{measure.digits}f}" for measure in MEASURES]


def methods_table(evidence: Evidence) -> str:
    """Gain of each other method over the default one, with the default schedule."""
    return _gains_table(
        evidence,
        [
            (f"**{strength:g}**: {method}", Variant(strength, method=method), Variant(strength))
            for strength in (0.0, *evidence.grid.strengths)
            for method in evidence.grid.methods
            if method != Variant(strength).method
        ],
    )


def schedules_table(evidence: Evidence, kind: str) -> str:
    """Gain of each other schedule over the default one, with the default method."""
    strength = evidence.grid.middle
    variants = [Variant(strength, schedule, kind=kind) for schedule in evidence.grid.schedules]
    default = Variant(strength, kind=kind)
    return _gains_table(
        evidence,
        [(f"{v.schedule}, from {evidence.sigma(v):.2f}", v, default) for v in variants if v != default],
    )


def _gains_table(evidence: Evidence, pairs: Sequence[tuple[str, Variant, Variant]]) -> str:
    rows = [
        [name, *(_gained(evidence.gain(variant, beside, measure.figure), measure) for measure in MEASURES)]
        for name, variant, beside in pairs
    ]
    return table(["", *_heads()], rows)


def _gained(gain: Mean, measure: Measure) -> str:
    """A difference with its margin, bold where zero lies outside of it and the digits show it."""
    value, margin = (f"{number:{sign}.{measure.digits}f}" for number, sign in ((gain.value, "+"), (gain.margin, "")))
    return f"**{value}** ± {margin}" if gain.clear and float(value) else f"{value} ± {margin}"


def places_table(evidence: Evidence) -> str:
    """Where the default stands among all variants, and what is best."""
    head = ["", *(f"{strength:g}" for strength in evidence.grid.strengths)]
    return table(head, [[measure.title, *_places(evidence, measure)] for measure in MEASURES])


def _places(evidence: Evidence, measure: Measure) -> list[str]:
    cells = []
    for strength in evidence.grid.strengths:
        rank, spread = evidence.rank(Variant(strength), measure)
        place, best = evidence.place(Variant(strength), measure), evidence.best(strength, measure)
        cells.append(f"{place} ({rank:.0f} ± {spread:.0f}); {best.name}")
    return cells


def photographs_table() -> str:
    """Names and licences."""
    rows = [
        [f"`{photograph.name}`", photograph.licence, photograph.author, "yes" if photograph.in_development else ""]
        for photograph in PHOTOGRAPHS
    ]
    return table(["in skimage.data", "licence", "by", "looked at while the model was made"], rows)


# Findings


def check_findings(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """Raise ValueError that quotes the findings that the figures do not bear out."""
    claims = [finding(evidence) for finding in findings]
    wrong = [claim.text for claim in claims if not claim.holds]
    if wrong:
        raise ValueError("no longer so; look at the figures and write FINDINGS anew:\n" + "\n".join(wrong))


def typical_photograph(evidence: Evidence) -> str:
    """The one whose gain in SSIM of this project's default over the WebUI's is the median."""
    strength = evidence.grid.middle
    gains = evidence.each(Variant(strength), "ssim") - evidence.each(Variant.host(strength), "ssim")
    return evidence.grid.photographs[int(gains.argsort()[len(gains) // 2])]


def _each_strength(evidence: Evidence, text: Callable[[float], str]) -> str:
    """A text for each strength, joined."""
    *most, last = [f"{text(strength)} at {strength:g}" for strength in evidence.grid.strengths]
    return f"{', '.join(most)} and {last}" if most else last


def _worse(evidence: Evidence, method: str, strength: float) -> bool:
    """Whether a method is clearly farther from the original than the default one, in PSNR and in SSIM."""
    gains = [evidence.gain(Variant(strength, method=method), Variant(strength), figure) for figure in ("psnr", "ssim")]
    return all(gain.clear and gain.value < 0 for gain in gains)


def default_beside_the_host(evidence: Evidence) -> Claim:
    def gain(strength: float, figure: str) -> Mean:
        return evidence.gain(Variant(strength), Variant.host(strength), figure)

    def sharper(strength: float) -> float:
        ours, host = Variant(strength), Variant.host(strength)
        return evidence.mean(ours, "detail").value / evidence.mean(host, "detail").value

    def by_method(strength: float) -> float:
        return evidence.gain(Variant(strength), Variant(strength, method=HOST_DEFAULT.method), "psnr").value

    decibels = _each_strength(evidence, lambda strength: f"{gain(strength, 'psnr').value:+.2f} dB")
    method = _each_strength(evidence, lambda strength: f"{by_method(strength):+.2f} dB")
    times = _each_strength(evidence, lambda strength: f"{sharper(strength):.1f} times")
    return Claim(
        "**nearest-exact + simple is nearer to the original than the WebUI's default, and sharper, at every denoising "
        f"strength.** PSNR: {decibels}; sharpness: {times}. Most of it is the method: beside bilinear with the same "
        f"schedule and steps it is {method}.",
        all(by_method(s) > gain(s, "psnr").value / 2 for s in evidence.grid.strengths)
        and all(evidence.mean(Variant(s), "detail").value < 1 for s in evidence.grid.strengths)
        and all(
            gain(strength, figure).clear and gain(strength, figure).value > 0
            for strength in evidence.grid.strengths
            for figure in ("psnr", "ssim", "detail")
        ),
    )


def methods(evidence: Evidence) -> Claim:
    strengths = evidence.grid.strengths
    others = [method for method in evidence.grid.methods if method != Variant(0).method]
    worse = [method for method in others if all(_worse(evidence, method, strength) for strength in strengths)]
    rest = [method for method in others if method not in worse]
    best = [
        evidence.mean(Variant(strength), figure).value
        >= max(evidence.mean(Variant(strength, method=method), figure).value for method in others)
        for strength in strengths
        for figure in ("psnr", "ssim")
    ]
    return Claim(
        "**Of the methods, nearest-exact is nearest to the original**: with simple it has the best mean PSNR and SSIM "
        f"at every denoising strength. {_listed(worse)} are clearly farther at every strength; for {_listed(rest)} the "
        "difference is not clear at each.",
        all(best) and bool(worse) and bool(rest),
    )


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def less_noise(evidence: Evidence) -> Claim:
    """Over all schedules with the default method."""
    strengths = evidence.grid.strengths
    variants = {s: [Variant(s, name) for name in evidence.grid.schedules] for s in strengths}
    correlation = {
        s: spearmanr(
            [evidence.sigma(variant) for variant in variants[s]],
            [evidence.mean(variant, "psnr").value for variant in variants[s]],
        ).statistic
        for s in strengths
    }
    alone = evidence.mean(Variant(0.0), "psnr").value
    highest = max(evidence.mean(variant, "psnr").value for s in strengths for variant in variants[s])
    return Claim(
        "**What schedules do here is mostly to choose how much noise there is, and with this model less is better.** "
        "With nearest-exact their order in PSNR is that of their first sigmas, reversed (rank correlation "
        f"{_each_strength(evidence, lambda strength: f'{correlation[strength]:.2f}')}), and no step at all "
        f"({alone:.2f} dB) is nearer to the original than the best of them ({highest:.2f} dB).",
        all(value < -0.8 for value in correlation.values()) and alone > highest,
    )


def default_is_not_nearest(evidence: Evidence) -> Claim:
    strengths, psnr = evidence.grid.strengths, AGAINST_ORIGINAL[0]
    places = {strength: evidence.place(Variant(strength), psnr) for strength in strengths}
    best = sorted({evidence.best(strength, psnr).name for strength in strengths})
    count = len(evidence.variants(strengths[0]))
    numbers = _each_strength(evidence, lambda strength: str(places[strength]))
    return Claim(
        "**So the default is not the one that is nearest to the original.** By PSNR nearest-exact + simple is "
        f"number {numbers}, of {count}; the best are {_listed(best)}. At the same slider "
        "simple starts from more noise than most others, so it changes more of the picture.",
        all(place > count / 10 for place in places.values()),
    )


def karras_stays_nearer(evidence: Evidence) -> Claim:
    strengths, figure = evidence.grid.strengths, "faithful_psnr"
    gains = {strength: evidence.gain(Variant(strength, "karras"), Variant(strength), figure) for strength in strengths}
    simple = [evidence.mean(Variant(strength), figure).value for strength in strengths]
    text = _each_strength(evidence, lambda strength: f"{gains[strength].value:+.2f} dB")
    return Claim(
        "**karras stays nearer to the input than simple** (the result shrunk again against the input): "
        f"{text}. Less denoising strength does the same.",
        all(gain.clear and gain.value > 0 for gain in gains.values()) and simple == sorted(simple, reverse=True),
    )


def matched_noise(evidence: Evidence) -> Claim:
    strength = evidence.grid.middle
    names = [name for name in evidence.grid.schedules if name != OUTSIDE]

    def spread(kind: str) -> float:
        means = [evidence.mean(Variant(strength, name, kind=kind), "psnr").value for name in names]
        return max(means) - min(means)

    return Claim(
        f"**From matched noise the schedules differ less**: at {strength:g} by {spread('matched'):.2f} dB between the "
        f"best and the worst (without {OUTSIDE}) instead of {spread('exact'):.2f} dB.",
        spread("matched") < spread("exact") / 1.5,
    )


def plain_resize_is_nearest(evidence: Evidence) -> Claim:
    results = [variant for strength in evidence.grid.strengths for variant in evidence.variants(strength)]
    nearer = [
        measure.best * evidence.reference("plain", measure.figure).value
        > max(measure.best * evidence.mean(variant, measure.figure).value for variant in results)
        for measure in AGAINST_ORIGINAL
    ]
    plain, coded = (evidence.reference(kind, "psnr").value for kind in ("plain", "coded"))
    return Claim(
        "**A plain resize without any model is nearer to the original than all of them**, by PSNR, SSIM and GMSD "
        f"({plain:.1f} dB): so small an autoencoder alone brings the original itself down to {coded:.1f} dB. Compare "
        "the rest with each other only.",
        all(nearer) and plain > coded,
    )


def seeds(evidence: Evidence) -> Claim:
    between_seeds, between_photographs = evidence.seed_spread("psnr")
    return Claim(
        "**The photographs matter more than the noise**: PSNR has a standard deviation of "
        f"{between_seeds:.2f} dB between seeds and of {between_photographs:.1f} dB between photographs.",
        between_seeds < between_photographs / 5,
    )


FINDINGS: tuple[Finding, ...] = (
    plain_resize_is_nearest,
    default_beside_the_host,
    methods,
    less_noise,
    default_is_not_nearest,
    karras_stays_nearer,
    matched_noise,
    seeds,
)


# The text


def document(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """The whole document; `check_findings` says whether it is true."""
    grid = evidence.grid
    host = evidence.gain(Variant(grid.middle), Variant.host(grid.middle), "ssim")
    return TEMPLATE.read_text(encoding="utf-8").format(
        findings="\n".join(f"- {finding(evidence).text}" for finding in findings),
        means=means_table(evidence),
        methods=methods_table(evidence),
        schedules=schedules_table(evidence, "exact"),
        matched=schedules_table(evidence, "matched"),
        places=places_table(evidence),
        photographs=photographs_table(),
        count=len(grid.photographs),
        runs=sum(len(run.figures) for run in evidence.runs),
        variants=len(evidence.variants(grid.middle)),
        shown=typical_photograph(evidence),
        better=f"{host.above} of {host.count}",
        size=grid.size,
        half=grid.size // 2,
        steps=grid.steps,
        middle=grid.middle,
        strengths=_listed([f"{strength:g}" for strength in grid.strengths]),
        twins="; ".join(f"{_listed(twins)} as {name}" for name, twins in evidence.twins.items() if twins),
        model=evidence.model[:12],
        versions=", ".join(f"{name} {number}" for name, number in evidence.versions.items()),
        outside=OUTSIDE,
        high=min(evidence.sigma(Variant(strength, OUTSIDE)) for strength in grid.strengths),
    )
