"""The report of `mom eval` as tables in the terminal, from its JSON form."""

from collections.abc import Mapping
from typing import Any

from mom.display import console
from mom.display.long_context_table import show_long_context

Json = Mapping[str, Any]
TASKS = {
    "mcq": "MCQ",
    "mcq_text": "MCQ by text",
    "exact_match": "exact match",
    "cloze": "cloze",
    "code": "code",
}


def show_report(report: Json) -> None:
    """Every table that has rows."""
    for domain in report["domains"]:
        _show_domain(report, domain)
    if len(report["domains"]) > 1:
        _show_all_domains(report)
    show_long_context(report)
    _show_probes(report)
    _show_costs(report)
    _show_harness(report)
    _show_controls(report)
    _show_verdicts(report)


def _show_domain(report: Json, domain: str) -> None:
    tasks = {task: label for task, label in TASKS.items() if _is_measured(report, domain, task)}
    rows = []
    for name, result in report["slices"].items():
        scores = result["domains"][domain]
        rows.append(
            [
                name,
                console.size(result["bytes"]),
                _value(scores["bits_per_byte"]),
                _difference(scores["vs_baseline"]),
                *_divergence(scores),
                *(_percent(scores.get(task)) for task in tasks),
                f"{result['decode_tokens_per_second']:.0f}",
            ]
        )
    text = report["domains"][domain]
    title = f"{domain}: {text['documents']} held-out documents, {text['bytes']:,} bytes"
    columns = ["slice", "size", "bits/byte", f"vs. {report['baseline'] or 'baseline'}"]
    columns += ["KL, nats/token (p99)", "KL, first pieces", "same top-1", "lost mass"]
    columns += [*tasks.values(), "decode tokens/s"]
    console.print_table(title, columns, rows)
    overlap = text["overlap"]
    if overlap and overlap["seen"]:
        console.warn(
            f"{domain}: {overlap['seen']} of {overlap['documents']} documents excluded: more than a tenth of "
            "their 13-grams occur in calibration text"
        )


def _show_all_domains(report: Json) -> None:
    domains = list(report["domains"])
    own_domain = report["own_domain"].items()
    best = {(each["slice"], domain) for domain, found in own_domain for each in found if each["best"]}
    rows = []
    for name, result in report["slices"].items():
        cells = []
        for domain in domains:
            mark = " *" if (name, domain) in best else " ." if result["domain"] == domain else ""
            cells.append(f"{_value(result['domains'][domain]['bits_per_byte'])}{mark}")
        rows.append([name, console.size(result["bytes"]), *cells])
    for label, quant in report["parent_quants"].items():
        cells = [
            _value(quant["domains"][domain]["bits_per_byte"]) if domain in quant["domains"] else "-"
            for domain in domains
        ]
        rows.append([f"parent as {label}", console.size(quant["bytes"]), *cells])
    console.print_table("bits per byte by slice and domain", ["slice", "size", *domains], rows)
    console.out.print(
        "*: own domain, significantly better than every slice of another domain; .: own domain, not "
        f"significantly. {report['comparisons']} comparisons with the baseline, p-values corrected by Holm's "
        "method.",
        soft_wrap=True, markup=False,
    )  # fmt: skip


def _show_probes(report: Json) -> None:
    names = [name for result in report["slices"].values() for name in result["probes"]]
    if not names:
        return
    probes = list(dict.fromkeys(names))
    rows = []
    for name, result in report["slices"].items():
        worse = result["significantly_worse"]
        cells = [
            _percent(result["probes"].get(probe), "value") + (" !" if probe in worse else "")
            for probe in probes
        ]
        rows.append([name, *cells])
    console.print_table("probes (!: significantly worse than the baseline)", ["slice", *probes], rows)


def _show_costs(report: Json) -> None:
    rows = []
    for name, result in report["slices"].items():
        cost = result["cost"]
        if cost is not None:
            inside = cost["kv_cache_bytes_per_token"]
            beyond = cost["kv_cache_bytes_per_token_beyond_window"]
            rows.append(
                [
                    name,
                    f"{cost['bits_per_weight']:.2f}",
                    f"{cost['load_seconds']:.2f} s",
                    console.size(cost["rss_bytes"]),
                    console.size(cost["peak_rss_bytes"]),
                    f"{inside:,} ({beyond:,})",
                    _throughput(cost["prefill_tokens_per_second"]),
                    _throughput(cost["decode_tokens_per_second"]),
                ]
            )
    columns = ["slice", "bits/weight", "load", "RSS", "peak RSS", "K/V cache bytes/token (beyond the window)"]
    if rows:
        console.print_table("cost", [*columns, "prefill tokens/s", "decode tokens/s"], rows)


def _show_harness(report: Json) -> None:
    rows = [
        [name, each["task"], each["metric"], _value(each), str(each["n"])]
        for name, result in report["slices"].items()
        for each in result["harness"]
    ]
    if rows:
        console.print_table("lm-evaluation-harness", ["slice", "task", "metric", "value", "samples"], rows)


def _show_controls(report: Json) -> None:
    """Healed slices against the uncut parent healed alike; a warning where there is no such control."""
    controls = {name: each["control"] for name, each in report["slices"].items() if each["control"]}
    rows = [
        [name, domain, control["control"], _difference(difference)]
        for name, control in controls.items()
        for domain, difference in control["bits_per_byte"].items()
    ]
    if rows:
        columns = ["healed slice", "domain", "control", "bits/byte vs. the control"]
        console.print_table("controls: the uncut parent, healed alike", columns, rows)
    for name, control in controls.items():
        if control["reason"]:
            console.warn(f"{name}: {control['reason']}")


def _show_verdicts(report: Json) -> None:
    for name, result in report["slices"].items():
        for note in result["notes"]:
            console.warn(f"{name}: {note}")
        if result["verdict"] is not None:
            console.err.print(f"{name}: {result['verdict']['sentence']}", soft_wrap=True, markup=False)


def _is_measured(report: Json, domain: str, task: str) -> bool:
    return any(task in result["domains"][domain] for result in report["slices"].values())


def _value(estimate: Json) -> str:
    stderr = estimate["stderr"]
    return f"{estimate['value']:.3f}" if stderr is None else f"{estimate['value']:.3f} ± {stderr:.3f}"


def _difference(difference: Json | None) -> str:
    if difference is None:
        return "-"
    if difference["p"] is None:
        return f"{difference['value']:+.3f} (n = {difference['n']}, not tested)"
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


def _divergence(scores: Json) -> list[str]:
    """Both KLs, top-1 agreement and lost mass; dashes in the baseline's own row."""
    if "kl" not in scores:
        return ["-"] * 4
    kl, spelled = scores["kl"], scores["kl_first_piece"]
    mean = f"{kl['mean']:.3f} ± {kl['stderr']:.3f} ({kl['p99']:.2f})"
    first_pieces = f"{spelled['mean']:.3f} ± {spelled['stderr']:.3f}"
    return [mean, first_pieces, f"{scores['same_top1']['value']:.1%}", f"{scores['lost_mass']:.2%}"]


def _percent(estimate: Json | None, key: str = "accuracy") -> str:
    return "-" if estimate is None else f"{estimate[key]:.0%} ± {estimate['stderr']:.0%}"


def _throughput(each: Json) -> str:
    return f"{each['median']:.0f} ({each['min']:.0f}-{each['max']:.0f})"
