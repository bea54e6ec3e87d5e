"""Muon for the matrices: momentum whose update is made orthogonal by Newton-Schulz steps (Jordan et al., 2024).

Matrices of one shape are stacked and orthogonalised together: for a model this small the step would
otherwise cost more than the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalised"]


def orthogonalised(stack: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack (B, R, C), roughly: singular values land in .7–1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = stack.shape[-2] <= stack.shape[-1]
    x = (stack if wide else stack.mT).to(torch.bfloat16)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).float()


class Muon:
    """Nesterov momentum with orthogonalised updates over a list of matrices."""

    def __init__(
        self, matrices: list[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        self.matrices = matrices
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.buffers = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the matrices' gradients."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, matrix in enumerate(self.matrices):
            by_shape.setdefault(tuple(matrix.shape), []).append(number)
        for (rows, columns), numbers in by_shape.items():
            updates = []
            for number in numbers:
                grad, buffer = self.matrices[number].grad, self.buffers[number]
                buffer.lerp_(grad, 1 - self.momentum)
                updates.append(grad.lerp(buffer, self.momentum))
            scale = max(1.0, rows / columns) ** 0.5
            for number, update in zip(numbers, orthogonalised(torch.stack(updates)), strict=True):
                matrix = self.matrices[number]
                matrix.mul_(1 - learning_rate * self.weight_decay).add_(update, alpha=-learning_rate * scale)
