"""Every method with every schedule on photographs whose original is known: what makes docs/evidence.md.

    python -m benchmarks.quality            # the whole grid: half an hour of one core; goes on where it was stopped
    python -m benchmarks.quality --quick    # two photographs and four schedules, into build/quality/quick

`photographs` names the pictures, `grid` says what is run and runs it, `evidence` holds and averages the figures,
`plots` draws them and `document` writes what they say.
"""
