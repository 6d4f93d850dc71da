"""`mom heal`: knowledge distillation of the parent into a slice."""

from pathlib import Path
from typing import Annotated

import typer

from mom.commands.options import Compare, Corpus, DeviceName, Force, Json, Output, emit
from mom.commands.quant_options import EmbeddingTypeOption, ImatrixOption, QatTypeOption
from slices.heal.settings import HealConfig, HealMethod, LostTokens
from slices.measure.compare_mode import CompareMode


def heal(
    slice_: Annotated[str, typer.Argument(metavar="SLICE", help="A slice's folder or name.")],
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 500,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget in place of --steps: as many steps as fit.")
    ] = None,
    method: Annotated[
        HealMethod, typer.Option(help="Trained parameters: norm gains, LoRA adapters, or all but embeddings.")
    ] = HealMethod.FULL,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; default by the initial KL and tokens per step.")
    ] = None,
    hard_label_weight: Annotated[
        float | None,
        typer.Option(help="Cross-entropy weight, 0 to 1; the rest is the KL weight. Default by the KL."),
    ] = None,
    hidden_state_weight: Annotated[
        float | None, typer.Option(help="Hidden-state loss weight; default by the initial KL.")
    ] = None,
    lost_tokens: Annotated[
        LostTokens,
        typer.Option(
            help="The parent's probability of tokens that were cut: moved to the first token that spells "
            "them, or dropped."
        ),
    ] = LostTokens.DROP,
    label_only_fraction: Annotated[
        float,
        typer.Option(help="Fraction of the steps, at the end, without teacher: faster, but a higher KL."),
    ] = 0.0,
    fade: Annotated[
        float,
        typer.Option(
            help="Fraction of the steps, at the start, in which dropped layers fade out: their contribution "
            "goes linearly from 1 to 0."
        ),
    ] = 0.0,
    batch: Annotated[int, typer.Option(help="Batch size, in rows.")] = 4,
    grad_accum: Annotated[int, typer.Option(help="Batches per optimizer step (gradient accumulation).")] = 1,
    row_tokens: Annotated[int, typer.Option(help="Tokens per row.")] = 512,
    rank: Annotated[int, typer.Option(help="LoRA rank.")] = 16,
    qat: Annotated[
        QatTypeOption | None,
        typer.Option(
            help="Quantization-aware: heal what mom quantize --type TYPE will serve.", metavar="TYPE"
        ),
    ] = None,
    qat_fraction: Annotated[
        float | None, typer.Option(help="Fraction of the steps, at the end, that are quantization-aware.")
    ] = None,
    imatrix: Annotated[
        ImatrixOption | None,
        typer.Option(help="With --qat: importance matrix; default none, unless the type needs it."),
    ] = None,
    embedding_type: Annotated[
        EmbeddingTypeOption | None, typer.Option(help="With --qat: type of the embeddings.")
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile; default for long runs.")
    ] = None,
    corpus: Corpus = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Cached teacher logits of --save-teacher, in place of the parent.")
    ] = None,
    save_teacher: Annotated[
        Path | None, typer.Option(help="Cache the parent's top-k logits in this file; heal nothing.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Tokens per position that --save-teacher keeps.")] = 64,
    plot: Annotated[Path | None, typer.Option(help="Plot the curve on selection text: .svg or .png.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also heal the uncut parent alike, as a control for mom eval.")
    ] = False,
    output: Output = None,
    device: Annotated[DeviceName, typer.Option(help="Where to train.")] = DeviceName.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the data order and LoRA weights.")] = 0,
    compare: Compare = CompareMode.AUTO,
    json: Json = False,
    force: Force = False,
) -> None:
    """Distill the parent into a slice on its domain's text; a killed run resumes from its last checkpoint."""
    from mom.workflows import heal
    from mom.workflows.quantize import uses_imatrix

    config = HealConfig(
        steps=steps,
        method=method,
        lr=lr,
        batch=batch,
        grad_accum=grad_accum,
        row_tokens=row_tokens,
        hard_label_weight=hard_label_weight,
        hidden_state_weight=hidden_state_weight,
        lost_tokens=lost_tokens,
        label_only_fraction=label_only_fraction,
        fade=fade,
        rank=rank,
        seed=seed,
        compiled=compiled,
        qat=qat,
        qat_fraction=qat_fraction,
        qat_embedding_type=embedding_type,
        qat_imatrix=uses_imatrix(qat, imatrix),
    )
    options = heal.HealOptions(
        slice=slice_,
        config=config,
        minutes=minutes,
        output=output,
        corpus=tuple(corpus or ()),
        teacher=teacher,
        save_teacher=save_teacher,
        top_k=top_k,
        plot=plot,
        device=device.value,
        threads=threads,
        force=force,
        compare=compare,
        control=control,
    )
    figures = heal.heal_slice(options)
    emit(json, figures, lambda: heal.show_healed(figures))
    if figures.get("failed"):
        raise typer.Exit(1)
