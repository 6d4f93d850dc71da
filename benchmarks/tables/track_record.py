"""The table of how the FFN-ratio predictor did, from the cases that `mom inspect` reads. Measures nothing."""

from slices.measure.track_record import Outcome, track_record

_WORDS = {True: "right", False: "wrong", None: "undecided"}
_PASSED = {True: "yes", False: "no", None: "not measured"}


def track_record_lines() -> tuple[list[str], list[list[str]]]:
    """Columns and a line a case."""
    columns = [
        "model",
        "FFN ratio",
        "sliding layers",
        "verdict",
        "verdict is",
        "advised type",
        "it passes",
        "source",
    ]
    return columns, [_line(outcome) for outcome in track_record()]


def _line(outcome: Outcome) -> list[str]:
    case, advice = outcome.case, outcome.advice
    return [
        case.model,
        " and ".join(f"{each:.3g}" for each in sorted({*case.ffn_ratios})),
        f"{case.swa_share:.0%}",
        f"{advice.verdict} ({advice.confidence:.2f})",
        _WORDS[outcome.right],
        advice.type,
        _PASSED[outcome.type_passed],
        case.source,
    ]
