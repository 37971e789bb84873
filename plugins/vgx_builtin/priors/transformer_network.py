"""The network of the transformer over indices.

Letters: B images, T indices of one image, K values of an index, F features, H heads, t indices so
far.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Past = tuple[Tensor, Tensor]  # keys and values of the indices before, each [B, H, t, F / H]


class Layer(nn.Module):
    """Causal self-attention and a network of two layers, each after a norm, beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.attention_norm, self.inputs = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)
        hidden = (nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.network = nn.Sequential(nn.LayerNorm(width), *hidden)

    def forward(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """[B, t, F]  Return new features, and the keys and values of all places until now.

        With `past`, x is the one place that follows.
        """
        inputs = self.inputs(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = inputs.permute(2, 0, 3, 1, 4)  # [B, H, t, F / H]
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=past is None)
        x = x + self.dropout(self.outputs(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(x)), (keys, values)


class SequenceModel(nn.Module):
    """The distribution of each index given those before it."""

    def __init__(
        self,
        shape: tuple[int, ...],
        codes: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.shape, self.length = shape, math.prod(shape)
        self.start = nn.Embedding(max(classes, 1), width)
        self.indices = nn.Embedding(codes, width)
        self.positions = nn.Parameter(torch.empty(self.length, width))  # [T, F]
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, codes)
        self.dropout = nn.Dropout(dropout)
        for name, weight in self.named_parameters():  # as GPT-2
            if weight.dim() > 1:
                last = name.endswith(("outputs.weight", "network.3.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth) if last else 0.02)

    def logits(self, indices: Tensor, labels: Tensor | None) -> Tensor:
        """[B, T, K]  The logits of each index of [B, T], given those before it alone."""
        x = torch.cat([self._start(len(indices), labels), self.indices(indices[:, :-1])], 1)
        x = self.dropout(x + self.positions)  # [B, T, F]
        for layer in self.layers:
            x, _ = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss(self, codes: Tensor, labels: Tensor | None, generator: Generator) -> Tensor:
        """Return -log p of indices [B, *shape] in nats for each index, the mean over images."""
        del generator
        flat = codes.flatten(1) if codes.dim() > 1 else codes[:, None]  # [B, T]
        return F.cross_entropy(self.logits(flat, labels).mT, flat)

    @torch.no_grad()
    def draw(
        self,
        n: int,
        labels: Tensor | None,
        generator: Generator,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Tensor:
        """[n, *shape]  Draw one index after another, each given those that are drawn."""
        x = self._start(n, labels)  # [n, 1, F]
        past: list[Past | None] = [None] * len(self.layers)
        drawn: list[Tensor] = []
        for place in range(self.length):
            x = x + self.positions[place]
            for number, layer in enumerate(self.layers):
                x, past[number] = layer(x, past[number])
            logits = self.head(self.norm(x))[:, 0].float() / temperature  # [n, K]
            if top_k is not None and top_k < logits.shape[1]:
                least = logits.topk(top_k, 1).values[:, -1:]
                logits = logits.masked_fill(logits < least, -math.inf)
            shares = logits.softmax(1).to(generator.device)
            drawn.append(torch.multinomial(shares, 1, generator=generator).to(x.device))  # [n, 1]
            x = self.indices(drawn[-1])
        return torch.cat(drawn, 1).view(n, *self.shape)

    def _start(self, n: int, labels: Tensor | None) -> Tensor:
        """[n, 1, F]  The vectors with which sequences begin."""
        if labels is None:
            labels = torch.zeros(n, dtype=torch.int64, device=self.positions.device)
        start: Tensor = self.start(labels.to(self.positions.device))[:, None]
        return start
