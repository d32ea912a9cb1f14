"""Training steps through PyTorch's compiler, where a plan asks for them.

Invariant: names and values in a state_dict are those of the plain network, and validation runs the plain network.
"""

# ruff: noqa: ARG002  # Lightning calls its hooks with more than we need

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from inspection.errors import EnvironmentTroubleError


class CompiledSteps(Callback):
    """Compiles ``net`` at its first step, on the device it trains on.

    Validation has other batch sizes and the other mode: compiling it as well costs more than it saves.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def on_fit_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Raises EnvironmentTroubleError where nothing can be compiled, before anything was trained."""
        torch.compiler.reset()  # after eight networks of one class it would go on uncompiled, and say nothing
        _try_compiler(trainer.strategy.root_device)
        self._net.compile()

    def on_validation_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """As it is."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Compiled again."""
        torch.compiler.set_stance("default")

    def teardown(self, trainer: lightning.Trainer, _: lightning.LightningModule, stage: str) -> None:
        """Also after a training that broke in its validation."""
        torch.compiler.set_stance("default")


def _try_compiler(device: torch.device) -> None:
    """PyTorch itself says it with a page of its own insides."""
    try:
        torch.compile(torch.sin)(torch.ones(64, device=device))
    except RuntimeError as error:
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++, or the one CXX names)"
        raise EnvironmentTroubleError(
            f"`compile_network` is on, and nothing can be compiled for {device}: install {needed}, or switch it off"
        ) from error
