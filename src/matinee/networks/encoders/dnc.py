"""Differentiable neural computer (DNC): a recurrent controller with an external memory.

Graves et al. (2016), "Hybrid computing using a neural network with dynamic external memory",
Nature 538 (equations in its Methods), with the three refinements of Csordás and Schmidhuber (2019),
"Improving Differentiable Neural Computers Through Memory Masking, De-allocation, and Link
Distribution Sharpness Control", ICLR. With all three switched off this is the DNC of Graves et al.

Deviations, all numerical:

- Norms are sqrt(|x|² + ε), so an empty memory cell has similarity 0 and a finite gradient.
- Allocation uses ε + (1 - ε) u in place of the usage u, because the gradient of a product divides by
  its factors. Cells with equal usage are taken in the order of their index.
- Usage treats the previous write weights as constants. The paper does not say whether it should; the
  authors' published code does. The gradient of the usage then reaches the free gates only.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matinee.contracts import State
from matinee.networks.encoders.stepping import scan_steps
from matinee.networks.options import check_shares, check_sizes

EPSILON = 1e-6


class DNCState(NamedTuple):
    """State that a :class:`DNCCell` passes from one step to the next; it starts as all zeros."""

    memory: Tensor  # M: (batch, num_cells, cell_dim)
    usage: Tensor  # u: (batch, num_cells), in [0, 1]
    precedence: Tensor  # p: (batch, num_cells), sums to at most 1
    links: Tensor  # L: (batch, num_cells, num_cells); [i, j] is 1 if i was written right after j
    write_weights: Tensor  # w^w: (batch, num_cells), sums to at most 1
    read_weights: Tensor  # w^r: (batch, num_reads, num_cells), each row sums to at most 1
    read_vectors: Tensor  # r: (batch, num_reads, cell_dim)
    controller: tuple[Tensor, ...]  # h of a GRU, h and c of an LSTM: (batch, hidden_dim) each


class Interface(NamedTuple):
    """Parts of the interface vector ξ, in this order, each mapped into its range."""

    read_keys: Tensor  # (batch, num_reads, cell_dim)
    write_key: Tensor  # (batch, 1, cell_dim)
    write_vector: Tensor  # (batch, 1, cell_dim)
    read_strengths: Tensor  # (batch, num_reads), at least 1
    write_strength: Tensor  # (batch, 1), at least 1
    sharpness: Tensor  # (batch, 2 * num_reads), at least 1, backward before forward; or (batch, 0)
    free_gates: Tensor  # (batch, num_reads), in [0, 1]
    allocation_gate: Tensor  # (batch, 1), in [0, 1]
    write_gate: Tensor  # (batch, 1), in [0, 1]
    erase_vector: Tensor  # (batch, 1, cell_dim), in [0, 1]
    read_masks: Tensor | None  # (batch, num_reads, cell_dim), in [0, 1]
    write_mask: Tensor | None  # (batch, 1, cell_dim), in [0, 1]
    read_modes: Tensor  # (batch, num_reads, 3), a distribution: backward, content, forward


def content_weights(
    memory: Tensor, keys: Tensor, strengths: Tensor, masks: Tensor | None = None
) -> Tensor:
    """Look up cells by content: softmax over i of β D(k ∘ m, M[i] ∘ m), with the cosine D.

    Graves et al., "Content-based addressing"; the mask m is from Csordás and Schmidhuber.

    Args:
        memory: Cells M, (batch, num_cells, cell_dim).
        keys: Keys k, (batch, num_keys, cell_dim).
        strengths: Strengths β, (batch, num_keys).
        masks: Masks m, same shape as ``keys``; None compares whole cells.

    Returns:
        One distribution over the cells per key, (batch, num_keys, num_cells).
    """
    if masks is None:
        norms = memory.square().sum(-1).unsqueeze(1)  # (batch, 1, num_cells)
    else:
        keys = keys * masks
        norms = torch.bmm(masks.square(), memory.square().mT)  # (batch, num_keys, num_cells)
    scales = strengths * (keys.square().sum(-1) + EPSILON).rsqrt()  # (batch, num_keys)
    keys = (keys if masks is None else keys * masks) * scales.unsqueeze(-1)
    return (torch.bmm(keys, memory.mT) * (norms + EPSILON).rsqrt()).softmax(-1)


def allocation_weights(usage: Tensor) -> Tensor:
    """Choose the cells to overwrite: a[φ_j] = (1 - u[φ_j]) ∏_{i<j} u[φ_i].

    φ are the cells in the order of increasing usage. Graves et al., "Dynamic memory allocation".

    Args:
        usage: Usage u of the cells, (batch, num_cells), in [0, 1].

    Returns:
        Weights that sum to at most 1, (batch, num_cells).
    """
    ordered, free_list = (EPSILON + (1 - EPSILON) * usage).sort(stable=True, dim=-1)
    products = ordered.cumprod(-1)  # (batch, num_cells), ∏_{i<=j}
    before = F.pad(products[:, :-1], (1, 0), value=1.0)  # (batch, num_cells), ∏_{i<j}
    return torch.zeros_like(usage).scatter(-1, free_list, before - products)


def update_links(links: Tensor, precedence: Tensor, write_weights: Tensor) -> Tensor:
    """Update the order of writes: L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j] and L[i, i] = 0.

    Graves et al., "Temporal memory linkage".

    Args:
        links: Link matrix L of the previous step, (batch, num_cells, num_cells).
        precedence: Precedence weights p of the previous step, (batch, num_cells).
        write_weights: Write weights w of this step, (batch, num_cells).

    Returns:
        The new link matrix, (batch, num_cells, num_cells).
    """
    rows, columns = write_weights.unsqueeze(2), write_weights.unsqueeze(1)
    links = torch.addcmul((1 - rows - columns) * links, rows, precedence.unsqueeze(1))
    return links * (1 - torch.eye(links.shape[-1], dtype=links.dtype, device=links.device))


def sharpen(weights: Tensor, sharpness: Tensor) -> Tensor:
    """Sharpen distributions: S(d, s)[i] = (d[i] + ε)^s / Σ_j (d[j] + ε)^s.

    Csordás and Schmidhuber, on link sharpness. Weights that are all 0 become uniform.

    Args:
        weights: Weights d, at least 0, (..., num_cells).
        sharpness: Exponents s, at least 1, (...).

    Returns:
        Distributions, same shape as ``weights``.
    """
    return (sharpness.unsqueeze(-1) * (weights + EPSILON).log()).softmax(-1)


class DNCCell(nn.Module):
    """Compute one step of a DNC, (input, state) -> (output, state); the module keeps no state.

    The output is [h_t; r_t], the hidden state of the controller and the read vectors. The arguments
    are those of :class:`DNC`; ``input_dim`` is the width of the input.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        num_cells: int,
        cell_dim: int,
        num_reads: int,
        controller: str,
        masking: bool,
        deallocation: bool,
        link_sharpening: bool,
    ) -> None:
        super().__init__()
        check_sizes(input_dim=input_dim, hidden_dim=hidden_dim)
        check_sizes(num_cells=num_cells, cell_dim=cell_dim, num_reads=num_reads)
        if controller not in ("lstm", "gru"):
            raise ValueError(f"controller is {controller!r}; choose one of lstm, gru.")
        self.hidden_dim, self.num_cells, self.cell_dim = hidden_dim, num_cells, cell_dim
        self.num_reads, self.controller = num_reads, controller
        self.masking, self.deallocation = masking, deallocation
        self.link_sharpening = link_sharpening
        self.output_dim = hidden_dim + num_reads * cell_dim
        gate_dim = (4 if controller == "lstm" else 3) * hidden_dim
        self.input_gates = nn.Linear(input_dim, gate_dim)
        self.read_gates = nn.Linear(num_reads * cell_dim, gate_dim, bias=False)
        self.hidden_gates = nn.Linear(hidden_dim, gate_dim)
        # Widths of the parts of ξ, grouped by activation: none, oneplus, sigmoid, softmax.
        self._kinds = [
            (num_reads + 2) * cell_dim,
            num_reads + 1 + 2 * num_reads * link_sharpening,
            cell_dim + num_reads + 2 + (num_reads + 1) * cell_dim * masking,
            3 * num_reads,
        ]
        self.interface = nn.Linear(hidden_dim, sum(self._kinds))

    def initial_state(self, batch_size: int) -> DNCState:
        """Return the zero state, with the dtype and device of the parameters."""
        zeros = self.interface.weight.new_zeros
        controller_entries = 2 if self.controller == "lstm" else 1
        return DNCState(
            memory=zeros(batch_size, self.num_cells, self.cell_dim),
            usage=zeros(batch_size, self.num_cells),
            precedence=zeros(batch_size, self.num_cells),
            links=zeros(batch_size, self.num_cells, self.num_cells),
            write_weights=zeros(batch_size, self.num_cells),
            read_weights=zeros(batch_size, self.num_reads, self.num_cells),
            read_vectors=zeros(batch_size, self.num_reads, self.cell_dim),
            controller=(zeros(batch_size, self.hidden_dim),) * controller_entries,
        )

    def forward(self, inputs: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
        """Map inputs (batch, input_dim) and a state to [h; r] (batch, output_dim) and a state."""
        return self.step(self.input_gates(inputs), state)

    def step(self, input_gates: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
        """Compute :meth:`forward` from ``self.input_gates(inputs)``, computed for all steps at once."""
        input_gates = input_gates + self.read_gates(state.read_vectors.flatten(1))
        controller = self._control(input_gates, state.controller)
        hidden = controller[0]  # (batch, hidden_dim)
        interface = self._read_interface(hidden)

        # Of the previous step: retention ψ = ∏_r (1 - f^r w^r) and usage u = (u + w^w - u w^w) ψ.
        retention = (1 - interface.free_gates.unsqueeze(-1) * state.read_weights).prod(1)
        written = state.write_weights.detach()
        usage = (state.usage + written - state.usage * written) * retention  # (batch, num_cells)

        # Write weights w^w = g^w (g^a a + (1 - g^a) c^w), with the lookup c^w in the OLD memory.
        content = content_weights(
            state.memory, interface.write_key, interface.write_strength, interface.write_mask
        ).squeeze(1)
        mixture = content.lerp(allocation_weights(usage), interface.allocation_gate)
        write_weights = interface.write_gate * mixture  # (batch, num_cells)

        # Memory M = ψ M (1 - w^w eᵀ) + w^w vᵀ, where ψ is the de-allocation.
        memory = state.memory * retention.unsqueeze(-1) if self.deallocation else state.memory
        change = interface.write_vector - memory * interface.erase_vector
        memory = torch.addcmul(memory, write_weights.unsqueeze(-1), change)

        # Links use the OLD precedence p; then p = (1 - Σ w^w) p + w^w.
        links = update_links(state.links, state.precedence, write_weights)
        kept = 1 - write_weights.sum(-1, keepdim=True)
        precedence = torch.addcmul(write_weights, kept, state.precedence)

        # Read weights w^r = π_1 b + π_2 c^r + π_3 f: b = Lᵀ w^r, f = L w^r, c^r in the NEW memory.
        content = content_weights(
            memory, interface.read_keys, interface.read_strengths, interface.read_masks
        )
        backward = torch.bmm(state.read_weights, links)  # (batch, num_reads, num_cells)
        forward = torch.bmm(state.read_weights, links.mT)
        if self.link_sharpening:
            followed = sharpen(torch.cat([backward, forward], dim=1), interface.sharpness)
            backward, forward = followed.chunk(2, dim=1)
        modes = torch.stack([backward, content, forward], dim=2)  # (batch, num_reads, 3, num_cells)
        read_weights = (interface.read_modes.unsqueeze(-1) * modes).sum(2)
        read_vectors = torch.bmm(read_weights, memory)  # r = Mᵀ w^r

        output = torch.cat([hidden, read_vectors.flatten(1)], dim=-1)
        state = DNCState(
            memory, usage, precedence, links, write_weights, read_weights, read_vectors, controller
        )
        return output, state

    def _control(self, gates: Tensor, previous: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute one step of the LSTM (in, forget, out, candidate) or GRU (reset, update, candidate)."""
        size, hidden = self.hidden_dim, previous[0]
        hidden_gates = self.hidden_gates(hidden)
        if self.controller == "lstm":
            sigmoids, candidate = (gates + hidden_gates).split_with_sizes([3 * size, size], -1)
            enter, forget, leave = sigmoids.sigmoid().chunk(3, dim=-1)  # (batch, hidden_dim) each
            carry = torch.addcmul(forget * previous[1], enter, candidate.tanh())
            return leave * carry.tanh(), carry
        sigmoids, candidate = gates.split_with_sizes([2 * size, size], -1)
        hidden_sigmoids, hidden_candidate = hidden_gates.split_with_sizes([2 * size, size], -1)
        reset, update = (sigmoids + hidden_sigmoids).sigmoid().chunk(2, dim=-1)
        candidate = torch.addcmul(candidate, reset, hidden_candidate).tanh()
        return (candidate.lerp(hidden, update),)

    def _read_interface(self, hidden: Tensor) -> Interface:
        """Split ξ = W_ξ h into its parts, with one activation for all parts of a kind."""
        reads, width = self.num_reads, self.cell_dim
        vectors, strengths, gates, modes = self.interface(hidden).split_with_sizes(self._kinds, -1)
        vectors = vectors.unflatten(-1, (reads + 2, width))
        read_keys, write_key, write_vector = vectors.split_with_sizes([reads, 1, 1], 1)
        strengths = 1 + F.softplus(strengths)  # oneplus(x) = 1 + log(1 + eˣ)
        read_strengths, write_strength, sharpness = strengths.split_with_sizes(
            [reads, 1, 2 * reads * self.link_sharpening], -1
        )
        gates, vectors = gates.sigmoid().split_with_sizes(
            [reads + 2, self._kinds[2] - reads - 2], -1
        )
        free_gates, allocation_gate, write_gate = gates.split_with_sizes([reads, 1, 1], -1)
        erase_vector, *masks = vectors.unflatten(-1, (-1, width)).split_with_sizes(
            [1, reads, 1] if self.masking else [1], 1
        )
        read_masks, write_mask = masks if self.masking else (None, None)
        return Interface(
            *(read_keys, write_key, write_vector),
            *(read_strengths, write_strength, sharpness),
            *(free_gates, allocation_gate, write_gate, erase_vector),
            *(read_masks, write_mask),
            modes.unflatten(-1, (reads, 3)).softmax(-1),
        )


class DNC(nn.Module):
    """Encode a history with a differentiable neural computer that starts from an empty memory.

    The output is y_t = W_y h_t + W_r r_t (Graves et al., "Controller network").

    Args:
        embedding_dim: Width of the inputs and outputs.
        hidden_dim: Width of the controller, at least 1.
        num_cells: Number N of memory cells, at least 1; a step costs O(N²) for the links.
        cell_dim: Width W of a memory cell, at least 1.
        num_reads: Number of read heads, at least 1.
        controller: "lstm" or "gru".
        masking: Whether keys are compared with cells through a mask.
        deallocation: Whether cells released by the free gates are emptied.
        link_sharpening: Whether the sharpness of the backward and forward weights is controlled.
        dropout: Share of [h_t; r_t] dropped while training, in [0, 1).

    Raises:
        ValueError: If a size or ``dropout`` is out of range, or ``controller`` is unknown.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_dim: int = 64,
        num_cells: int = 16,
        cell_dim: int = 16,
        num_reads: int = 1,
        controller: str = "lstm",
        masking: bool = True,
        deallocation: bool = True,
        link_sharpening: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_shares(dropout=dropout)
        self.cell = DNCCell(
            *(embedding_dim, hidden_dim, num_cells, cell_dim, num_reads, controller),
            *(masking, deallocation, link_sharpening),
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.cell.output_dim, embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, embedding_dim) as (batch, length, embedding_dim), causally."""
        state = self.initial_state(inputs.shape[0])
        if torch.compiler.is_exporting():

            def step(state: tuple[Any, ...], gates: Tensor) -> tuple[tuple[Any, ...], Tensor]:
                output, after = self.cell.step(gates, DNCState(*state))
                return tuple(after), output

            return self.output(scan_steps(step, tuple(state), self.cell.input_gates(inputs)))  # type: ignore[no-any-return]
        return self.unroll(inputs, state)[0]

    def initial_state(self, batch_size: int) -> DNCState:
        """Return the state before the first step."""
        return self.cell.initial_state(batch_size)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, DNCState]:
        """Encode part of a sequence, starting from ``state``; also return the state after it."""
        kind, outputs, state = inputs.device.type, [], DNCState(*state)
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        # No mixed precision here: usage and links accumulate over the whole sequence.
        with torch.autocast(kind, enabled=False) if mixed else nullcontext():
            gates = self.cell.input_gates(inputs.to(self.output.weight.dtype))
            for input_gates in gates.unbind(1):
                output, state = self.cell.step(input_gates, state)
                outputs.append(output)
            features = torch.stack(outputs, dim=1)  # (batch, length, output_dim of the cell)
            return self.output(self.dropout(features)), state
