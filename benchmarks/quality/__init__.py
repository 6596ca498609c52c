"""What each way to enlarge is worth after denoising, on pictures whose original is known: makes docs/evidence.md.

    python -m benchmarks.quality --drawings DIR            the whole grid: about an hour of one core
    python -m benchmarks.quality --drawings DIR --quick    a small part of it, into build/quality/quick

It goes on where it was stopped. DIR has drawings as `tools.learned.pictures` wants them. `pictures` names the
originals, `grid` says what is run and runs it, `evidence` holds and averages the figures, `plots` draws them and
`document` writes what they say.
"""
