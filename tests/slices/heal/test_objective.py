"""The loss of healing and its gradient, against a plain implementation."""

from typing import Any

import pytest
import torch

from slices.heal.cached_teacher import TopKOutput
from slices.heal.hidden_states import HiddenStates
from slices.heal.objective import IGNORE_INDEX, OutputHead, distillation_loss, evaluate_losses, label_loss
from slices.heal.teacher import ParentOutput
from slices.heal.teacher_head import KeptRows

POSITIONS, HIDDEN, ROWS = 600, 24, 50  # more positions than a chunk has


def expected(hidden: Any, head: OutputHead) -> ParentOutput:
    return ParentOutput(HiddenStates((), hidden), KeptRows(head))


def distillation_setup(cap: float | None, absent: bool) -> tuple[Any, OutputHead, ParentOutput, Any]:
    """Hidden states, an output layer, a teacher, and target ids; every third has none."""
    torch.manual_seed(5)
    mask = torch.zeros(ROWS)
    if absent:
        mask[7] = mask[31] = -torch.inf
    head = OutputHead(torch.randn(ROWS, HIDDEN), cap, mask if absent else None)
    other = OutputHead(torch.randn(ROWS, HIDDEN), cap, mask if absent else None)
    target_ids = torch.randint(0, 7, (POSITIONS,))
    target_ids[::3] = IGNORE_INDEX
    return torch.randn(POSITIONS, HIDDEN), head, expected(torch.randn(POSITIONS, HIDDEN), other), target_ids


def reference_loss(
    hidden: Any, head: OutputHead, target: ParentOutput, target_ids: Any, hard_label_weight: float
) -> Any:
    """The same loss, written plainly."""

    def logs(states: Any, layer: OutputHead) -> Any:
        logits = states @ layer.weight.T
        logits = torch.tanh(logits / layer.softcap) * layer.softcap if layer.softcap else logits
        return logits if layer.mask is None else logits + layer.mask

    assert isinstance(target.head, KeptRows)
    teacher_probs = logs(target.states.last, target.head.head).softmax(-1)
    mixed = teacher_probs * (1 - hard_label_weight * (target_ids != IGNORE_INDEX))[:, None]
    mixed[torch.arange(len(target_ids)), target_ids.clamp(min=0)] += hard_label_weight * (
        target_ids != IGNORE_INDEX
    )
    student_logprobs = logs(hidden, head).log_softmax(-1).clamp(min=-1e9)
    entropy = torch.special.entr(teacher_probs).sum(-1)
    known = torch.where(target_ids == IGNORE_INDEX, 1.0, 1 - hard_label_weight)
    return (-(mixed * student_logprobs).sum(-1) - known * entropy).mean()


@pytest.mark.parametrize("hard_label_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("cap", "absent"), [(None, False), (4.0, False), (None, True), (4.0, True)])
def test_loss_and_gradient_match_a_plain_implementation(
    cap: float | None, absent: bool, hard_label_weight: float
) -> None:
    states, head, target, target_ids = distillation_setup(cap, absent)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    value, _ = distillation_loss(ours, head, target, target_ids, hard_label_weight)
    expected = reference_loss(theirs, head, target, target_ids, hard_label_weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)
    assert ours.grad.abs().max() > 1e-4


@pytest.mark.parametrize(("cap", "absent"), [(None, False), (4.0, False), (None, True), (4.0, True)])
def test_label_loss_is_cross_entropy(cap: float | None, absent: bool) -> None:
    states, head, _, target_ids = distillation_setup(cap, absent)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    logits = theirs @ head.weight.T
    logits = torch.tanh(logits / cap) * cap if cap else logits
    logits = logits if head.mask is None else logits + head.mask
    expected = (
        torch.nn.functional.cross_entropy(logits, target_ids, ignore_index=IGNORE_INDEX, reduction="sum")
        / POSITIONS
    )
    value = label_loss(ours, head, target_ids)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)
    assert ours.grad.abs().max() > 1e-4


def test_self_distillation_has_zero_loss_and_gradient() -> None:
    states, head, _, target_ids = distillation_setup(4.0, True)
    hidden = states.clone().requires_grad_()
    value, losses = distillation_loss(hidden, head, expected(states, head), target_ids, 0.0)
    value.backward()
    assert abs(value.item()) < 1e-6
    assert hidden.grad.abs().max() < 1e-8
    assert losses.kl.abs().max() < 1e-5


def test_evaluation_gives_the_same_losses_as_training() -> None:
    states, head, target, target_ids = distillation_setup(None, True)
    _, trained = distillation_loss(states.clone().requires_grad_(), head, target, target_ids, 0.4)
    found = evaluate_losses(states, head, target, target_ids)
    assert torch.equal(found.kl, trained.kl)
    assert torch.equal(found.nll, trained.nll)
    assert (found.nll[::3] == 0).all()
    assert (found.nll[1::3] > 0).all()


def top_of(target: ParentOutput, k: int) -> TopKOutput:
    found = target.logprobs(0, POSITIONS, None).topk(k, dim=1)
    return TopKOutput(found.indices, found.values)


def test_a_cached_teacher_with_every_token_is_the_teacher() -> None:
    states, head, target, target_ids = distillation_setup(None, False)
    whole = evaluate_losses(states, head, target, target_ids).kl
    kept = evaluate_losses(states, head, top_of(target, ROWS), target_ids).kl
    assert torch.allclose(whole, kept, atol=1e-4)


def test_tokens_outside_the_top_k_are_one_class() -> None:
    """KL over the k tokens and the rest as one: by hand, and no gradient among the rest."""
    states, head, target, target_ids = distillation_setup(None, False)
    top = top_of(target, 5)
    found = evaluate_losses(states, head, top, target_ids).kl
    student_logprobs = head.logprobs(states)[0].exp()
    ours = student_logprobs.gather(1, top.ids)
    teacher_probs = top.top_logprobs.exp()
    rest, theirs = 1 - teacher_probs.sum(1), 1 - ours.sum(1)
    by_hand = (teacher_probs * (teacher_probs / ours).log()).sum(1) + rest * (rest / theirs).log()
    assert torch.allclose(found, by_hand, rtol=1e-3, atol=1e-4)
    assert (
        found <= evaluate_losses(states, head, target, target_ids).kl + 1e-4
    ).all()  # data processing inequality
