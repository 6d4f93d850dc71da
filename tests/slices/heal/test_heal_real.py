"""Healing the real Gemma 3 270M's sliding layers for some steps, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slices import demo_model
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RUN = """
import json, resource, sys
from pathlib import Path
from slices.heal.heal import heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig, HealMethod
from tests.slices.heal_fixtures import sentences
source, target, method, steps = sys.argv[1:]
bounds = []
config = HealConfig(steps=int(steps), method=HealMethod(method), eval_every=100)
request = HealRequest(Path(source), Path(target), sentences(250), config)
done = heal(request, on_memory_bound=bounds.append)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([done.before.kl.value, done.after.kl.value, peak, bounds[0].total]))
"""


@pytest.fixture(scope="module")
def swa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOM_HOME", str(tmp_path_factory.mktemp("home")))
        target = tmp_path_factory.mktemp("slices") / "swa"
        cut(
            SliceRequest(
                domain="law", layers="swa", model=str(demo_model.ensure(demo_model.NAME)), output=target
            )
        )
        yield target


@pytest.mark.parametrize(("method", "steps"), [("norms", 16), ("lora", 16), ("full", 24)])
def test_a_few_steps_help_within_the_memory_that_was_said(
    method: str, steps: int, swa: Path, tmp_path: Path
) -> None:
    """The bound holds, and is no more than twice what was taken."""
    command = [sys.executable, "-c", RUN, str(swa), str(tmp_path / "healed"), method, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, peak, bound = json.loads(done.stdout)
    assert after < 0.9 * before
    assert peak <= bound <= 2 * peak
