"""What a step takes besides time: counted floating-point operations, and the bytes of the tensors that live at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import torch
import torchvision.ops  # noqa: F401  (its operators)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

ATEN, VISION = torch.ops.aten, torch.ops.torchvision
FLOPS = {  # of what torch's counter does not know: attention on the CPU and deformable convolutions
    ATEN._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, key, value
    ),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **__: sdpa_backward_flop_count(
        *shapes[:4]
    ),
    VISION.deform_conv2d: lambda images, weight, *_, out_shape, **__: conv_flop_count(
        images, weight, out_shape, transposed=False
    ),
    # As much as forward for the gradient of the input, and again for that of the weight.
    VISION._deform_conv2d_backward: lambda grad, images, weight, *_, **__: (
        2 * 2 * grad[0] * prod(grad[2:]) * prod(weight)
    ),
}


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that live at the same time, whatever the allocator keeps.

    What an operation uses and was not made inside has lived from the beginning. Scratch memory inside an operation is
    not seen. Views and tensors that share a storage count once.

    Attributes:
        from_before: Bytes that lived before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.from_before, self._grown, self._most_grown = 0, 0, 0

    @property
    def peak(self) -> int:
        """Bytes at the worst moment so far."""
        return self.from_before + self._most_grown

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.from_before += self._bytes_of_new((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self._grown += self._bytes_of_new(result)
        self._most_grown = max(self._most_grown, self._grown)
        return result

    def _bytes_of_new(self, values: object) -> int:
        total = 0
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._known:
                    self._known[key] = weakref.ref(storage, partial(self._forget, key, size))
                    total += size
        return total

    def _forget(self, key: int, size: int, _: weakref.ref[torch.UntypedStorage]) -> None:
        del self._known[key]
        self._grown -= size


def peak_bytes(call: Callable[[], float], device: torch.device) -> int:
    """Most bytes that tensors take at once during a call, those included that it only uses.

    On a GPU what the call adds is what torch's allocator says, scratch memory included; what it uses is found as on the
    CPU, so that other networks on the device do not count. The call is then made twice.
    """
    gc.collect()
    with LiveTensors() as live:
        call()
    if device.type != "cuda":
        return live.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return live.from_before + torch.cuda.max_memory_allocated(device) - before


def counted(call: Callable[[], float], device: torch.device) -> tuple[int, int]:
    """Floating-point operations of a call, two per multiply-add, and its `peak_bytes`.

    RoIAlign's sampling counts nothing, and operations inside a graph that ``torch.compile`` made are not seen.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FLOPS)

    def with_counter() -> float:
        with counter:
            return call()

    peak = peak_bytes(with_counter, device)
    return int(counter.get_total_flops()), peak
