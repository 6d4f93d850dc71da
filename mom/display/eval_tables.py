"""A report in the terminal: matrix, domains, probes, costs, from the JSON that `mom eval` writes."""

from collections.abc import Mapping
from typing import Any

from mom.display import console

Json = Mapping[str, Any]
TASKS = {"mcq": "mcq", "mcq_text": "mcq by text", "exact_match": "numbers", "cloze": "cloze", "code": "code"}


def show_report(found: Json) -> None:
    """Every table that has something in it."""
    for domain in found["domains"]:
        _show_domain(found, domain)
    if len(found["domains"]) > 1:
        _show_matrix(found)
    _show_probes(found)
    _show_costs(found)
    _show_published(found)
    _say_verdicts(found)


def _show_domain(found: Json, domain: str) -> None:
    rows = []
    for name, row in found["slices"].items():
        cell = row["domains"][domain]
        rows.append(
            [
                name,
                console.size(row["bytes"]),
                _value(cell["bits_per_byte"]),
                _gap(cell["against"]),
                *_likeness(cell),
                *(_share(cell.get(task)) for task in TASKS if _any(found, domain, task)),
                f"{row['tokens_per_second']:.0f}",
            ]
        )
    text = found["domains"][domain]
    title = f"{domain}: {text['documents']} held-out documents, {text['bytes']:,} bytes"
    difference = f"against {found['against']}" if found["against"] else "against"
    tasks = [label for task, label in TASKS.items() if _any(found, domain, task)]
    columns = [
        "slice",
        "size",
        "bits per byte",
        difference,
        "KL (p99)",
        "same first",
        "lost",
        *tasks,
        "tokens/s",
    ]
    console.print_table(title, columns, rows)
    overlap = text["overlap"]
    if overlap and overlap["seen"]:
        console.warn(
            f"{domain}: {overlap['seen']} of {overlap['documents']} documents were left out, since "
            "calibration text holds more than a tenth of their runs of 13 words"
        )


def _show_matrix(found: Json) -> None:
    domains = list(found["domains"])
    diagonal = found["diagonal"].items()
    best = {(each["slice"], domain) for domain, own in diagonal for each in own if each["best"]}
    rows = []
    for name, row in found["slices"].items():
        cells = []
        for domain in domains:
            mark = " *" if (name, domain) in best else " ." if row["domain"] == domain else ""
            cells.append(f"{_value(row['domains'][domain]['bits_per_byte'])}{mark}")
        rows.append([name, console.size(row["bytes"]), *cells])
    for label, control in found["controls"].items():
        cells = [
            _value(control["domains"][domain]["bits_per_byte"]) if domain in control["domains"] else "-"
            for domain in domains
        ]
        rows.append([f"the parent as {label}", console.size(control["bytes"]), *cells])
    console.print_table("bits per byte by slice and domain", ["slice", "size", *domains], rows)
    console.out.print(
        f"*: a slice's own domain, where it is surely better than every other slice; .: not surely. "
        f"{found['comparisons']} comparisons with the reference; p corrected by Holm's method.",
        soft_wrap=True, markup=False,
    )  # fmt: skip


def _show_probes(found: Json) -> None:
    names = [name for row in found["slices"].values() for name in row["probes"]]
    if not names:
        return
    probes = list(dict.fromkeys(names))
    rows = []
    for name, row in found["slices"].items():
        cells = [_share(row["probes"].get(probe), "value") for probe in probes]
        marked = [
            f"{cell} !" if name_ in row["worse_on"] else cell
            for name_, cell in zip(probes, cells, strict=True)
        ]
        rows.append([name, *marked])
    console.print_table("probes (!: surely worse than the reference)", ["slice", *probes], rows)


def _show_costs(found: Json) -> None:
    rows = []
    for name, row in found["slices"].items():
        cost = row["cost"]
        if cost is not None:
            rows.append(
                [
                    name,
                    f"{cost['bits_per_weight']:.2f}",
                    f"{cost['load_seconds']:.2f} s",
                    console.size(cost["resident_bytes"]),
                    console.size(cost["peak_bytes"]),
                    f"{cost['kv_token']:,} ({cost['kv_token_beyond']:,})",
                    _speed(cost["prompt_tokens_per_second"]),
                    _speed(cost["written_tokens_per_second"]),
                ]
            )
    columns = ["slice", "bits a weight", "load", "resident", "peak", "K/V bytes a token (beyond the window)"]
    if rows:
        console.print_table("cost", [*columns, "prompt tokens/s", "written tokens/s"], rows)


def _show_published(found: Json) -> None:
    rows = [
        [name, each["task"], each["metric"], _value(each), str(each["n"])]
        for name, row in found["slices"].items()
        for each in row["published"]
    ]
    if rows:
        console.print_table("lm-evaluation-harness", ["slice", "task", "metric", "value", "items"], rows)


def _say_verdicts(found: Json) -> None:
    for name, row in found["slices"].items():
        for note in row["notes"]:
            console.warn(f"{name}: {note}")
        if row["verdict"] is not None:
            console.err.print(f"{name}: {row['verdict']['sentence']}", soft_wrap=True, markup=False)


def _any(found: Json, domain: str, task: str) -> bool:
    return any(task in row["domains"][domain] for row in found["slices"].values())


def _value(each: Json) -> str:
    stderr = each["stderr"]
    return f"{each['value']:.3f}" if stderr is None else f"{each['value']:.3f} ± {stderr:.3f}"


def _gap(each: Json | None) -> str:
    return "-" if each is None else f"{each['value']:+.3f} ({each['low']:+.3f} to {each['high']:+.3f})"


def _likeness(cell: Json) -> list[str]:
    """KL, same first token and lost mass; the reference's own row has none."""
    if "kl" not in cell:
        return ["-", "-", "-"]
    return [_spread(cell["kl"]), _percent(cell["same_top1"]), f"{cell['lost_mass']:.2%}"]


def _spread(each: Json) -> str:
    return f"{each['mean']:.3f} ± {each['stderr']:.3f} ({each['p99']:.2f})"


def _percent(each: Json) -> str:
    return f"{each['value']:.1%}"


def _share(each: Json | None, key: str = "accuracy") -> str:
    return "-" if each is None else f"{each[key]:.0%} ± {each['stderr']:.0%}"


def _speed(each: Json) -> str:
    return f"{each['median']:.0f} ({each['min']:.0f}-{each['max']:.0f})"
