"""The loss of healing and its gradient, against the plain way to compute them."""

from typing import Any

import pytest
import torch

from slices.heal.objective import NONE, Head, distil, from_text, measure
from slices.heal.saved import Top
from slices.heal.states import States
from slices.heal.teacher import Expected

POSITIONS, HIDDEN, ROWS = 600, 24, 50  # more positions than a chunk has


def expected(hidden: Any, head: Head) -> Expected:
    return Expected(States((), hidden), head)


def world(cap: float | None, absent: bool) -> tuple[Any, Head, Expected, Any]:
    """Hidden states, an output layer, a teacher, and the tokens that came; every third has none."""
    torch.manual_seed(5)
    gone = torch.zeros(ROWS)
    if absent:
        gone[7] = gone[31] = -torch.inf
    head = Head(torch.randn(ROWS, HIDDEN), cap, gone if absent else None)
    other = Head(torch.randn(ROWS, HIDDEN), cap, gone if absent else None)
    came = torch.randint(0, 7, (POSITIONS,))
    came[::3] = NONE
    return torch.randn(POSITIONS, HIDDEN), head, expected(torch.randn(POSITIONS, HIDDEN), other), came


def plain(hidden: Any, head: Head, target: Expected, came: Any, hard: float) -> Any:
    """The same loss, as one would write it on a blackboard."""

    def logs(states: Any, layer: Head) -> Any:
        logits = states @ layer.weight.T
        logits = torch.tanh(logits / layer.cap) * layer.cap if layer.cap else logits
        return logits if layer.absent is None else logits + layer.absent

    wanted = logs(target.states.last, target.head).softmax(-1)
    mixed = wanted * (1 - hard * (came != NONE))[:, None]
    mixed[torch.arange(len(came)), came.clamp(min=0)] += hard * (came != NONE)
    given = logs(hidden, head).log_softmax(-1).clamp(min=-1e9)
    entropy = torch.special.entr(wanted).sum(-1)
    known = torch.where(came == NONE, 1.0, 1 - hard)
    return (-(mixed * given).sum(-1) - known * entropy).mean()


@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("cap", "absent"), [(None, False), (4.0, False), (None, True), (4.0, True)])
def test_loss_and_gradient_are_the_plain_ones(cap: float | None, absent: bool, hard: float) -> None:
    states, head, target, came = world(cap, absent)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    value, _ = distil(ours, head, target, came, hard)
    expected = plain(theirs, head, target, came, hard)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)
    assert ours.grad.abs().max() > 1e-4


@pytest.mark.parametrize(("cap", "absent"), [(None, False), (4.0, False), (None, True), (4.0, True)])
def test_text_alone_is_plain_cross_entropy(cap: float | None, absent: bool) -> None:
    states, head, _, came = world(cap, absent)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    logits = theirs @ head.weight.T
    logits = torch.tanh(logits / cap) * cap if cap else logits
    logits = logits if head.absent is None else logits + head.absent
    expected = torch.nn.functional.cross_entropy(logits, came, ignore_index=NONE, reduction="sum") / POSITIONS
    value = from_text(ours, head, came)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)
    assert ours.grad.abs().max() > 1e-4


def test_nothing_to_learn_from_oneself() -> None:
    states, head, _, came = world(4.0, True)
    hidden = states.clone().requires_grad_()
    value, losses = distil(hidden, head, expected(states, head), came, 0.0)
    value.backward()
    assert abs(value.item()) < 1e-6
    assert hidden.grad.abs().max() < 1e-8
    assert losses.kl.abs().max() < 1e-5


def test_measuring_gives_the_same_losses_as_training() -> None:
    states, head, target, came = world(None, True)
    _, trained = distil(states.clone().requires_grad_(), head, target, came, 0.4)
    found = measure(states, head, target, came)
    assert torch.equal(found.kl, trained.kl)
    assert torch.equal(found.nll, trained.nll)
    assert (found.nll[::3] == 0).all()
    assert (found.nll[1::3] > 0).all()


def top_of(target: Expected, k: int) -> Top:
    found = target.logprobs(0, POSITIONS, None).topk(k, dim=1)
    return Top(found.indices, found.values)


def test_a_saved_teacher_that_kept_every_token_is_the_teacher() -> None:
    states, head, target, came = world(None, False)
    whole = measure(states, head, target, came).kl
    kept = measure(states, head, top_of(target, ROWS), came).kl
    assert torch.allclose(whole, kept, atol=1e-4)


def test_of_the_rest_only_its_sum_is_learned() -> None:
    """KL over the k tokens and the rest as one: by hand, and no gradient among the rest."""
    states, head, target, came = world(None, False)
    top = top_of(target, 5)
    found = measure(states, head, top, came).kl
    given = head.logprobs(states)[0].exp()
    ours = given.gather(1, top.ids)
    wanted = top.logs.exp()
    rest, theirs = 1 - wanted.sum(1), 1 - ours.sum(1)
    by_hand = (wanted * (wanted / ours).log()).sum(1) + rest * (rest / theirs).log()
    assert torch.allclose(found, by_hand, rtol=1e-3, atol=1e-4)
    assert (found <= measure(states, head, target, came).kl + 1e-4).all()  # data processing inequality
