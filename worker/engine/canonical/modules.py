"""Modules for what behaves differently in training and has no module of its own in torch.nn."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ScaledDotProductAttention(nn.Module):
    """Attention with dropout on the attention weights, in training only."""

    def __init__(self, dropout_p: float, is_causal: bool = False, enable_gqa: bool = False) -> None:
        super().__init__()
        self.dropout_p = dropout_p
        self.is_causal = is_causal
        self.enable_gqa = enable_gqa

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Shapes as for `torch.nn.functional.scaled_dot_product_attention`."""
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=self.dropout_p if self.training else 0.0,
            is_causal=self.is_causal,
            scale=scale,
            enable_gqa=self.enable_gqa,
        )
