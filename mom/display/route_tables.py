"""The tables of `mom route eval`: the routed decision first, in all and by group; then what it rests on."""

from collections.abc import Mapping

from mom.display import console
from router.training.decision_cost import DecisionCost
from router.training.evaluate import RouteReport
from router.training.leave_one_out import HeldOutAccuracy
from router.training.route_accuracy import ForcedAccuracy, RoutedAccuracy
from slices.estimate import Estimate

_COLUMNS = ["queries", "routed right", "to the generalist", "wrong expert", "forced choice"]


def show(report: RouteReport) -> None:
    """Accuracy of decisions in all, by group and by group left out of the fit; then what they rest on."""
    _accuracy_tables(report)
    _left_out_table("source", report.leave_one_source_out)
    _left_out_table("form", report.leave_one_form_out)
    if report.cost is not None:
        _cost_table(report.cost)
    if report.skipped:
        console.warn(f"{report.skipped} queries of domains that the router does not know were skipped")
    console.print_table("router", ["", "value"], _figures(report))


def _left_out_table(group: str, found: Mapping[str, HeldOutAccuracy] | None) -> None:
    if found is None:
        return
    rows = []
    for name, each in found.items():
        cells = _row(each.routed, each.forced) if each.routed else ["0", "-", "-", "-", "-"]
        note = each.routed.note or "" if each.routed else "its domains are in no other"
        rows.append([name, *cells, str(each.training_queries), note])
    console.print_table(
        f"each {group} by a router that was fitted without it", [group, *_COLUMNS, "fitted on", ""], rows
    )


def _cost_table(cost: DecisionCost) -> None:
    choices = {
        "routed": cost.routed,
        "oracle: the cheapest model for each label": cost.oracle,
        "the generalist alone": cost.generalist,
        "a model at random": cost.random,
    }
    shown = [[name, _cost(each)] for name, each in choices.items()]
    left_out = f"; {cost.unmeasured} not measured" if cost.unmeasured else ""
    title = f"measured cost of the served models, {cost.n} queries{left_out}"
    console.print_table(title, ["choice", "against the generalist"], shown)


def _cost(each: Estimate) -> str:
    return f"{100 * each.value:+.1f} % ± {100 * each.stderr:.1f}"


def _accuracy_tables(report: RouteReport) -> None:
    forced = report.forced
    total = ForcedAccuracy(n=forced.n, accuracy=forced.accuracy, stderr=forced.stderr, note=None)
    overall = {"all": report.routed} | ({"hard, for no expert": report.hard} if report.hard else {})
    _accuracy_table("routed decisions", "", overall, {"all": total})
    _accuracy_table("by domain", "domain", report.by_domain, forced.by_domain)
    _accuracy_table("by form", "form", report.by_form, forced.by_form)
    _accuracy_table("by language", "language", report.by_language, forced.by_language)
    _accuracy_table("by source", "source", report.by_source, forced.by_source, _ece_by_source(report))


def _accuracy_table(
    title: str,
    group: str,
    routed: Mapping[str, RoutedAccuracy],
    forced: Mapping[str, ForcedAccuracy],
    ece: Mapping[str, str] | None = None,
) -> None:
    """One row a group; nothing where there are no groups. `ece` is a further column."""
    rows = [
        [name, *_row(each, forced.get(name)), *([ece.get(name, "-")] if ece else []), each.note or ""]
        for name, each in routed.items()
    ]
    if rows:
        console.print_table(title, [group, *_COLUMNS, *(["ECE"] if ece else []), ""], rows)


def _row(routed: RoutedAccuracy, forced: ForcedAccuracy | None) -> list[str]:
    return [
        str(routed.n),
        _with_stderr(routed),
        _percent(routed.to_generalist),
        _percent(routed.wrong_expert),
        _with_stderr(forced) if forced else "-",
    ]


def _ece_by_source(report: RouteReport) -> dict[str, str]:
    return {name: f"{each.ece:.3f}" for name, each in report.ece_by_source.items()}


def _figures(report: RouteReport) -> list[list[str]]:
    return [
        ["expected calibration error", f"{report.ece:.3f}"],
        ["out-of-domain AUROC", "-" if report.ood_auroc is None else f"{report.ood_auroc:.3f}"],
        ["out-of-domain recall", _percent(report.ood_recall)],
        ["out-of-domain recall at 95 % acceptance", _percent(report.ood_recall_at_95)],
        *([f"robustness: {name}", _percent(value)] for name, value in report.robustness.items()),
        *([f"decided by {name}", _percent(value)] for name, value in report.decided_by.items()),
        *([f"latency {name}, ms", f"{value:.1f}"] for name, value in report.latency_ms.items()),
    ]


def _with_stderr(each: RoutedAccuracy | ForcedAccuracy) -> str:
    return f"{100 * each.accuracy:.1f} % ± {100 * each.stderr:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
