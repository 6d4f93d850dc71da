"""What quantizing is tried on and with: a pico, importance matrices made up for it, children that fail."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.quant.coverage import executed_matrices
from slices.quant.imatrix_file import Imatrix
from tests.slices.gguf_fixtures import SLIDING, write_gemma3, write_manifest

RUN = "import sys; from pathlib import Path; from slices.quant.quantize import quantize\n"


def made_up_imatrix(folder: Path, seed: int = 3) -> Imatrix:
    """For every matrix that is multiplied: a few columns that matter much, the others little."""
    random = np.random.default_rng(seed)
    values = {}
    for name, tensor in executed_matrices(read_anatomy(open_checkpoint(folder).config)).items():
        columns = random.uniform(0.01, 0.1, tensor.shape[-1]).astype(np.float32)
        columns[random.permutation(len(columns))[: len(columns) // 8]] = 100
        values[name] = np.tile(columns, tensor.shape[0] if len(tensor.shape) == 3 else 1)
    return Imatrix(
        values=values, counts={name: np.array([64]) for name in values}, tokens=64, sha256="0" * 64
    )


@pytest.fixture(name="pico")
def pico_slice(tmp_path: Path) -> Path:
    folder = write_gemma3(tmp_path / "pico", [SLIDING])
    write_manifest(folder, "pico")
    return folder


def write_stub(path: Path, command: str, script: str) -> Path:
    """A program that runs a shell script in place of that command of the quantizer, else Python."""
    path.write_text(
        f'#!/bin/sh\nif [ "$2 $3" = "slices.quant.child {command}" ]; then\n{script}\nfi\n'
        f'exec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return path


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def start(pico: Path, kind: str, **more: str) -> "subprocess.Popen[bytes]":
    code = f"{RUN}quantize(Path({str(pico)!r}), {kind!r}, threads=1)"
    if more:
        code = code.replace("quantize(Path", f"sys.executable = {more['executable']!r}; quantize(Path")
    return subprocess.Popen([sys.executable, "-c", code])
