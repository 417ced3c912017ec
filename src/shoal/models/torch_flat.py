"""A torch module whose numbers lie in one flat vector."""

from __future__ import annotations

import copy
import math
from typing import Any

from shoal.errors import SettingError
from shoal.extras import needed
from shoal.vector import Layout, Part

torch = needed("torch", "torch")

Tensor = Any
"""A torch tensor. torch is optional, so its types cannot stand in annotations."""


def check_module(module: Any) -> None:
    """SettingError if the numbers of a module cannot lie in one vector of float32."""
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if torch.nn.parameter.is_lazy(parameter):
            raise SettingError(f"{name} has no shape yet: run one batch through the module first")
        first = names.setdefault(parameter.data_ptr() if parameter.numel() else id(parameter), name)
        if first != name:
            raise SettingError(
                f"{first} and {name} are the same numbers under two names: keep one Parameter and use it twice in "
                "forward"
            )
        if parameter.requires_grad:
            _check_array(name, parameter)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise SettingError(f"{type(module).__name__} has no parameters to train")
    for name, buffer in _statistics(module).items():
        _check_array(name, buffer)
        if not bool(torch.isfinite(buffer).all()):
            raise SettingError(
                f"the buffer {name} is not finite, and buffers travel with the weights: register constants with "
                "persistent=False"
            )


def _check_array(name: str, array: Tensor) -> None:
    if array.dtype != torch.float32:
        raise SettingError(f"{name} is {array.dtype}, and weights travel as torch.float32: call module.float()")
    if not array.is_contiguous():
        raise SettingError(f"{name} is not contiguous: replace its data with .contiguous()")


def layout_of(module: Any) -> Layout:
    """Parameters that are trained, then the buffers that travel, by their names in the module."""
    return Layout(tuple(Part(name, tuple(array.shape)) for name, array in _travelling(module).items()))


def vector_of(module: Any) -> Tensor:
    """A copy of what travels, as one vector."""
    return torch.cat([array.detach().reshape(-1).cpu() for array in _travelling(module).values()])


class Flat:
    """A module of its own whose trained parameters and running statistics are views of one vector.

    Loading what a client is sent is one copy, and what training changed is one subtraction. What does not travel
    (whole numbers, constants) is put back at each load, so that no client sees what another left there.
    """

    def __init__(self, module: Any, device: str) -> None:
        self.module = copy.deepcopy(module).to(device)
        travelling = list(_travelling(self.module).items())
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.vector = torch.cat([array.detach().reshape(-1) for _, array in travelling])
        self.weights = self.vector[: sum(parameter.numel() for parameter in self.parameters)]
        views: list[Tensor] = []
        for (_, array), piece in zip(travelling, self.vector.split([a.numel() for _, a in travelling]), strict=True):
            array.data = piece.view(array.shape)
            views.append(array.data)
        self.views = views[: len(self.parameters)]
        moving = {name for name, _ in travelling}
        self._buffers = [_Buffer(self.module, name, name in moving) for name, _ in self.module.named_buffers()]

    def load(self, vector: Tensor) -> None:
        """Puts a vector into the module."""
        for buffer in self._buffers:
            buffer.restore()
        self.vector.copy_(vector)

    def settle(self) -> None:
        """Takes into the vector the statistics that the module has replaced by new tensors."""
        for buffer in self._buffers:
            buffer.settle()

    @property
    def bare(self) -> bool:
        """Whether parameters are all there is: no buffer that training could change."""
        return not self._buffers


class _Buffer:
    """A buffer of a module, and the tensor that should be there."""

    def __init__(self, module: Any, name: str, travels: bool) -> None:
        path, _, self._name = name.rpartition(".")
        self._owner = module.get_submodule(path)
        self._tensor = getattr(self._owner, self._name)
        self._travels = travels
        self._first = None if travels else self._tensor.clone()

    def restore(self) -> None:
        if getattr(self._owner, self._name) is not self._tensor:
            setattr(self._owner, self._name, self._tensor)
        if self._first is not None:
            self._tensor.copy_(self._first)

    def settle(self) -> None:
        now = getattr(self._owner, self._name)
        if self._travels and now is not self._tensor:
            self._tensor.copy_(now.detach())


def pieces(vector: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The named arrays of a vector, as views."""
    parts = vector.split([math.prod(part.shape) for part in layout.parts])
    return {part.name: piece.view(part.shape) for part, piece in zip(layout.parts, parts, strict=True)}


def _travelling(module: Any) -> dict[str, Tensor]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return trained | _statistics(module)


def _statistics(module: Any) -> dict[str, Tensor]:
    """The floating-point buffers that a module saves: running statistics."""
    saved = module.state_dict(keep_vars=True)
    return {name: b for name, b in module.named_buffers() if name in saved and b.is_floating_point()}
